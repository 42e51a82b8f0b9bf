// Vercel AI SDK with each of its providers for the three dialects.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, isStepCount, Output, streamText, tool } from "ai";
import * as c from "./cells.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;
const providers = {
  anthropic: (settings) => createAnthropic(settings),
  openai: (settings) => createOpenAI(settings),
  "openai, store: false": (settings) => createOpenAI(settings),
  "openai.chat": (settings) => createOpenAI(settings).chat,
  "openai-compatible": (settings) =>
    createOpenAICompatible({ name: "relay", supportsStructuredOutputs: true, ...settings }),
};
const stateless = c.variant === "openai, store: false" ? { store: false } : {};
const effort = { reasoningEffort: "high", reasoningSummary: "auto", forceReasoning: true };
const thinks = {
  anthropic: { anthropic: { thinking: { type: "enabled", budgetTokens: 1024 } } },
  openai: { openai: effort },
  "openai, store: false": { openai: { ...effort, ...stateless } },
}[c.variant];

const ask = (name = c.MODEL, apiKey = c.key) => ({
  model: providers[c.variant]({ apiKey, baseURL: `${c.url}/v1` })(name),
  providerOptions: { openai: stateless },
});
const weather = tool({
  description: "Say the weather of a city.",
  inputSchema: c.Where,
  execute: c.getWeather,
});
const withTool = { prompt: c.USE, tools: { get_weather: weather }, stopWhen: isStepCount(4) };
const text = async (options) => (await generateText(options)).text;

await c.run(
  {
    plain: () => text({ ...ask(), prompt: c.HELLO }),
    stream: () => c.collect(streamText({ ...ask(), prompt: c.HELLO }).textStream),
    loop: async () =>
      (await c.collect(streamText({ ...ask(), ...withTool }).textStream)).join(""),
    parallel: () => text({ ...ask(), ...withTool }),
    structured: async () =>
      (
        await generateText({
          ...ask(),
          prompt: c.CITY_TEXT,
          output: Output.object({ schema: c.City }),
        })
      ).output,
    picture: () =>
      text({
        ...ask(),
        messages: [
          {
            role: "user",
            content: [
              { type: "text", text: c.HELLO },
              { type: "image", image: Buffer.from(c.PNG, "base64") },
            ],
          },
        ],
      }),
    thinking:
      thinks === undefined
        ? "in chat completions it hands no thoughts back with their signatures"
        : () => text({ ...ask(c.THINKER), ...withTool, providerOptions: thinks }),
  },
  (name, apiKey) => text({ ...ask(name, apiKey), prompt: c.HELLO }),
);
