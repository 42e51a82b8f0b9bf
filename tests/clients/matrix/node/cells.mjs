// Runs the cells of one client and prints a JSON line for each. Used by the drivers beside it.
//
// Arguments: the dialect, the URLs of the relay and of its simulated upstream, a key, and a key
// whose limit is used up. A driver's cell is a function, or a reason why the client has no such
// thing. Only this machine is reached.
import dns from "node:dns";
import { z } from "zod";

export const [dialect, url, upstream, key, spentKey, variant] = process.argv.slice(2);
export const MODEL = "claude-sonnet-4-7";
export const THINKER = "claude-haiku-4-5"; // thinks after a result only if its thoughts came back
export const HELLO = "Hello from the matrix";
export const USE = "Use get_weather.";
export const CITY_TEXT = "Describe a city.";
export const PNG =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
export const City = z.object({ name: z.string(), people: z.number() });
export const Where = z.object({ city: z.string() });

const lookup = dns.lookup;
dns.lookup = (host, ...rest) => {
  if (host !== "localhost") throw new Error(`${host} is not to be reached`);
  return lookup(host, ...rest);
};

let calls = 0;
export const getWeather = () => `rain ${(calls += 1)}`;

export async function collect(pieces) {
  const all = [];
  for await (const piece of pieces) all.push(piece);
  return all;
}

const script = (...steps) =>
  fetch(`${upstream}/simulate/script`, { method: "PUT", body: JSON.stringify(steps) });
const begin = (cell) => fetch(`${upstream}/simulate/requests?cell=${cell}`);
const print = (report) => console.log(JSON.stringify(report));

// `say` asks for a plain answer of a model with a key.
export async function run(cells, say) {
  for (const [cell, work] of Object.entries(cells)) {
    if (typeof work === "string") {
      print({ cell, none: work });
      continue;
    }
    calls = 0;
    await begin(cell);
    // Several steps: a client may repeat its first request. After a result no step calls a tool.
    await script(...Array(cell === "parallel" ? 4 : 0).fill("tool=get_weather;tools=2"));
    try {
      const returned = await work();
      print({ cell, returned, calls });
    } catch (error) {
      print({ cell, raised: String(error.stack).slice(0, 3000) });
    }
  }
  for (const [cell, model, credential] of [
    ["unknown", "no-such-model", key],
    ["quota", MODEL, spentKey],
  ]) {
    await begin(cell);
    let shown;
    try {
      shown = `an answer: ${await say(model, credential)}`;
    } catch (error) {
      shown = String(error.message);
    }
    print({ cell, returned: shown });
  }
}
