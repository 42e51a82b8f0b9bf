// Talks to the relay with the Node SDK and prints what came as one JSON line.
// Run from the folder that has node_modules; the base URL and the key are arguments.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [url, key] = process.argv.slice(2);
const find = createRequire(`${process.cwd()}/`);
const { default: Anthropic } = await import(pathToFileURL(find.resolve("@anthropic-ai/sdk")));

const client = new Anthropic({ apiKey: key, baseURL: url, maxRetries: 0 });
const request = {
  model: "claude-sonnet-4-7",
  max_tokens: 200,
  messages: [{ role: "user", content: "Hello from Node" }],
};

const whole = await client.messages.create(request);
const pieces = [];
const stream = client.messages.stream(request).on("text", (piece) => pieces.push(piece));
const final = await stream.finalMessage();
const { input_tokens: counted } = await client.messages.countTokens({
  model: request.model,
  messages: request.messages,
});
const models = [];
for await (const model of client.models.list()) models.push(model.id);

let cut = "no error";
try {
  const headers = { "x-simulate": "tokens=20;fault=cut;at=9" };
  await client.messages.stream(request, { headers }).finalMessage();
} catch (error) {
  cut = error.constructor.name;
}
let refused = "no error";
try {
  await client.messages.create({ ...request, model: "gpt-6" });
} catch (error) {
  refused = `${error.constructor.name} ${error.status} ${error.error.error.type}`;
}

console.log(
  JSON.stringify({
    whole: whole.content[0].text,
    pieces: pieces.length,
    streamed: pieces.join(""),
    final: final.content[0].text,
    used: [whole.usage, final.usage].map((usage) => [usage.input_tokens, usage.output_tokens]),
    counted,
    models,
    cut,
    refused,
  }),
);
