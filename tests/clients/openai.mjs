// Talks to the relay with OpenAI's Node SDK and prints what came as one JSON line.
// Run from the folder that has node_modules; the base URL and the key are arguments.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [url, key] = process.argv.slice(2);
const find = createRequire(`${process.cwd()}/`);
const load = (name) => import(pathToFileURL(find.resolve(name)));
const { default: OpenAI } = await load("openai");
const { zodResponseFormat } = await load("openai/helpers/zod");
const { z } = await load("zod");

const client = new OpenAI({ apiKey: key, baseURL: `${url}/v1`, maxRetries: 0 });
const chat = client.chat.completions;
const request = {
  model: "claude-sonnet-4-7",
  messages: [{ role: "user", content: "Hello from Node" }],
};
const steered = (script) => ({ headers: { "x-simulate": script } });

const whole = await chat.create(request);
const pieces = [];
const stream = chat
  .stream({ ...request, stream_options: { include_usage: true } })
  .on("content", (piece) => pieces.push(piece));
const final = await stream.finalChatCompletion();

const tool = {
  type: "function",
  function: {
    name: "get_weather",
    parameters: {
      type: "object",
      properties: { city: { type: "string" } },
      required: ["city"],
    },
  },
};
// This model goes on thinking after a tool's result only if its thoughts came back.
async function calls(ask) {
  const messages = [{ role: "user", content: "Use get_weather." }];
  const turns = [];
  let count = 0;
  for (let turn = 0; turn < 4; turn += 1) {
    const asked = { model: "claude-haiku-4-5", messages, tools: [tool], reasoning_effort: "high" };
    const answer = await ask(asked, steered(turn % 2 ? "" : "tool=get_weather;tools=2"));
    const { message, finish_reason } = answer.choices[0];
    turns.push([finish_reason, Boolean(message.reasoning_details)]);
    messages.push(message);
    for (const call of message.tool_calls ?? []) {
      count += "city" in JSON.parse(call.function.arguments);
      messages.push({ role: "tool", tool_call_id: call.id, content: `rain ${count}` });
    }
    if (!message.tool_calls?.length) messages.push({ role: "user", content: "Once more." });
  }
  return { turns, said: messages.at(-2).content };
}
const calledWhole = await calls((asked, how) => chat.create(asked, how));
const calledStreamed = await calls((asked, how) => chat.stream(asked, how).finalChatCompletion());

const Person = z.object({ name: z.string(), age: z.number().nullable() });
const parsed = await chat.parse({
  ...request,
  response_format: zodResponseFormat(Person, "person"),
});
const models = [];
for await (const model of client.models.list()) models.push(model.id);

async function failing(asked, script) {
  try {
    await chat.stream(asked, steered(script)).finalChatCompletion();
  } catch (error) {
    return [error instanceof OpenAI.APIError, error.status ?? null, error.code ?? null];
  }
  return "no error";
}

console.log(
  JSON.stringify({
    whole: whole.choices[0].message.content,
    pieces: pieces.length,
    streamed: pieces.join(""),
    final: final.choices[0].message.content,
    used: [whole.usage, final.usage].map((usage) => [usage.prompt_tokens, usage.completion_tokens]),
    called: [calledWhole, calledStreamed],
    parsed: parsed.choices[0].message.parsed,
    models,
    refused: await failing({ ...request, model: "gpt-6" }, ""),
    cut: await failing(request, "tokens=20;fault=cut;at=9"),
  }),
);
