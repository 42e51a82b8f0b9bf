// The OpenAI Agents SDK with chat completions and responses.
import {
  Agent,
  OpenAIProvider,
  Runner,
  setTracingDisabled,
  tool,
} from "@openai/agents";
import * as c from "./cells.mjs";

setTracingDisabled(true);
const weather = tool({
  name: "get_weather",
  description: "Say the weather of a city.",
  parameters: c.Where,
  execute: c.getWeather,
});

function ask(input, options = {}, model = c.MODEL, apiKey = c.key, how = {}) {
  const useResponses = c.dialect === "responses";
  const modelProvider = new OpenAIProvider({ apiKey, baseURL: `${c.url}/v1`, useResponses });
  const agent = new Agent({ name: "Assistant", model, ...options });
  return new Runner({ modelProvider }).run(agent, input, how);
}
const output = async (...given) => (await ask(...given)).finalOutput;

async function stream() {
  const result = await ask(c.HELLO, {}, c.MODEL, c.key, { stream: true });
  return c.collect(result.toTextStream());
}

const picture = [
  {
    role: "user",
    content: [
      { type: "input_text", text: c.HELLO },
      { type: "input_image", image: `data:image/png;base64,${c.PNG}` },
    ],
  },
];
const modelSettings = {
  reasoning: { effort: "high", summary: "auto" },
  store: false,
  providerData: { include: ["reasoning.encrypted_content"] },
};

await c.run(
  {
    plain: () => output(c.HELLO),
    stream,
    loop: () => output(c.USE, { tools: [weather] }),
    parallel: () => output(c.USE, { tools: [weather] }),
    structured: () => output(c.CITY_TEXT, { outputType: c.City }),
    picture: () => output(picture),
    thinking:
      c.dialect === "chat"
        ? "in chat completions it hands no thoughts back with their signatures"
        : () => output(c.USE, { tools: [weather], modelSettings }, c.THINKER),
  },
  (model, apiKey) => output(c.HELLO, {}, model, apiKey),
);
