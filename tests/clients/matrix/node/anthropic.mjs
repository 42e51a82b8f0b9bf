// Anthropic's SDK.
import Anthropic from "@anthropic-ai/sdk";
import { betaZodTool } from "@anthropic-ai/sdk/helpers/beta/zod";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import * as c from "./cells.mjs";

const client = (apiKey = c.key) => new Anthropic({ apiKey, baseURL: c.url });
const asked = (content, model = c.MODEL) => ({
  model,
  max_tokens: 4000,
  messages: [{ role: "user", content }],
});
const textOf = (message) => message.content.find((block) => block.type === "text")?.text;
const say = async (model, apiKey, content = c.HELLO) =>
  textOf(await client(apiKey).messages.create(asked(content, model)));
const weather = betaZodTool({
  name: "get_weather",
  description: "Say the weather of a city.",
  inputSchema: c.Where,
  run: c.getWeather,
});
const loop = async (model, more) =>
  textOf(
    await client().beta.messages.toolRunner({ ...asked(c.USE, model), tools: [weather], ...more }),
  );

async function stream() {
  const pieces = [];
  const stream = client().messages.stream(asked(c.HELLO));
  await stream.on("text", (piece) => pieces.push(piece)).finalMessage();
  return pieces;
}

async function structured() {
  const output_config = { format: zodOutputFormat(c.City) };
  return (await client().messages.parse({ ...asked(c.CITY_TEXT), output_config })).parsed_output;
}

const source = { type: "base64", media_type: "image/png", data: c.PNG };

await c.run(
  {
    plain: () => say(c.MODEL, c.key),
    stream,
    loop: () => loop(c.MODEL),
    parallel: () => loop(c.MODEL),
    structured,
    picture: () => say(c.MODEL, c.key, [{ type: "text", text: c.HELLO }, { type: "image", source }]),
    thinking: () => loop(c.THINKER, { thinking: { type: "enabled", budget_tokens: 1024 } }),
  },
  say,
);
