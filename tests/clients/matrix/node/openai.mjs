// OpenAI's SDK with chat completions and responses.
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import * as c from "./cells.mjs";

const client = (apiKey = c.key) => new OpenAI({ apiKey, baseURL: `${c.url}/v1` });
const parameters = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};
const described = { name: "get_weather", description: "Say the weather of a city.", parameters };
const user = (content) => [{ role: "user", content }];

const chat = {
  say: async (model, apiKey, content = c.HELLO) => {
    const asked = { model, messages: user(content) };
    const answer = await client(apiKey).chat.completions.create(asked);
    return answer.choices[0].message.content;
  },
  async stream() {
    const asked = { model: c.MODEL, messages: user(c.HELLO), stream: true };
    const chunks = await c.collect(await client().chat.completions.create(asked));
    return chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "");
  },
  async loop() {
    const tool = { ...described, function: c.getWeather, parse: JSON.parse };
    const tools = [{ type: "function", function: tool }];
    const asked = { model: c.MODEL, messages: user(c.USE), tools };
    return client().chat.completions.runTools(asked).finalContent();
  },
  async thinking() {
    const messages = user(c.USE);
    const tools = [{ type: "function", function: described }];
    const asked = { model: c.THINKER, messages, tools, reasoning_effort: "high" };
    for (;;) {
      const { message } = (await client().chat.completions.create(asked)).choices[0];
      messages.push(message);
      if (!message.tool_calls) return message.content;
      for (const call of message.tool_calls)
        messages.push({ role: "tool", tool_call_id: call.id, content: c.getWeather() });
    }
  },
  async structured() {
    const response_format = zodResponseFormat(c.City, "city");
    const asked = { model: c.MODEL, messages: user(c.CITY_TEXT), response_format };
    return (await client().chat.completions.parse(asked)).choices[0].message.parsed;
  },
  picture: [
    { type: "text", text: c.HELLO },
    { type: "image_url", image_url: { url: `data:image/png;base64,${c.PNG}` } },
  ],
};

const responses = {
  say: async (model, apiKey, content = c.HELLO) =>
    (await client(apiKey).responses.create({ model, input: user(content) })).output_text,
  async stream() {
    const stream = client().responses.stream({ model: c.MODEL, input: c.HELLO });
    const events = await c.collect(stream);
    return events.filter((event) => event.type.endsWith("text.delta")).map((event) => event.delta);
  },
  async loop(more = {}) {
    const input = user(c.USE);
    const tools = [{ type: "function", strict: true, ...described }];
    for (;;) {
      const answer = await client().responses.create({ model: c.MODEL, input, tools, ...more });
      input.push(...answer.output);
      const calls = answer.output.filter((item) => item.type === "function_call");
      if (!calls.length) return answer.output_text;
      for (const { call_id } of calls)
        input.push({ type: "function_call_output", call_id, output: c.getWeather() });
    }
  },
  thinking: () =>
    responses.loop({
      model: c.THINKER,
      reasoning: { effort: "high", summary: "auto" },
      store: false,
      include: ["reasoning.encrypted_content"],
    }),
  async structured() {
    const text = { format: zodTextFormat(c.City, "city") };
    const asked = { model: c.MODEL, input: c.CITY_TEXT, text };
    return (await client().responses.parse(asked)).output_parsed;
  },
  picture: [
    { type: "input_text", text: c.HELLO },
    { type: "input_image", detail: "auto", image_url: `data:image/png;base64,${c.PNG}` },
  ],
};

const api = c.dialect === "chat" ? chat : responses;
await c.run(
  {
    plain: () => api.say(c.MODEL, c.key),
    stream: api.stream,
    loop: () => api.loop(),
    parallel: () => api.loop(),
    structured: api.structured,
    picture: () => api.say(c.MODEL, c.key, api.picture),
    thinking: api.thinking,
  },
  api.say,
);
