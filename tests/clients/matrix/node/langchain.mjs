// LangChain: ChatOpenAI with chat completions and responses, and ChatAnthropic.
import { ChatAnthropic } from "@langchain/anthropic";
import { HumanMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import { ChatOpenAI } from "@langchain/openai";
import * as c from "./cells.mjs";

function chat(model = c.MODEL, apiKey = c.key, options = {}) {
  if (c.dialect === "messages")
    return new ChatAnthropic({ model, apiKey, anthropicApiUrl: c.url, ...options });
  const useResponsesApi = c.dialect === "responses";
  const configuration = { baseURL: `${c.url}/v1` };
  return new ChatOpenAI({ model, apiKey, configuration, useResponsesApi, ...options });
}
// ChatOpenAI drops its own option `reasoning` for names that are not OpenAI's.
const modelKwargs = {
  reasoning: { effort: "high", summary: "auto" },
  include: ["reasoning.encrypted_content"],
};
const thinks = {
  messages: { thinking: { type: "enabled", budget_tokens: 1024 }, maxTokens: 4000 },
  responses: { modelKwargs, zdrEnabled: true },
}[c.dialect];
const weather = tool(c.getWeather, {
  name: "get_weather",
  description: "Say the weather of a city.",
  schema: c.Where,
});

async function loop(model) {
  const bound = model.bindTools([weather]);
  const messages = [new HumanMessage(c.USE)];
  for (let step = 0; step < 4; step += 1) {
    const answer = await bound.invoke(messages);
    messages.push(answer);
    if (!answer.tool_calls.length) return answer.text;
    for (const call of answer.tool_calls) messages.push(await weather.invoke(call));
  }
  return "no end";
}

async function stream() {
  const chunks = await c.collect(await chat().stream(c.HELLO));
  return chunks.map((chunk) => chunk.text);
}

async function picture() {
  const image = { type: "image_url", image_url: { url: `data:image/png;base64,${c.PNG}` } };
  const content = [{ type: "text", text: c.HELLO }, image];
  return (await chat().invoke([new HumanMessage({ content })])).text;
}

await c.run(
  {
    plain: async () => (await chat().invoke(c.HELLO)).text,
    stream,
    loop: () => loop(chat()),
    parallel: () => loop(chat()),
    structured: () => chat().withStructuredOutput(c.City).invoke(c.CITY_TEXT),
    picture,
    thinking:
      c.dialect === "chat"
        ? "in chat completions it hands no thoughts back with their signatures"
        : () => loop(chat(c.THINKER, c.key, thinks)),
  },
  async (model, apiKey) => (await chat(model, apiKey).invoke(c.HELLO)).text,
);
