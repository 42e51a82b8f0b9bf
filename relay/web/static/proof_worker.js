// Finds a number for which SHA-256 of "challenge:number" begins with so many zero bits. The browser's
// own SHA-256 is for https only and answers too slowly for single blocks, so this has its own
// (FIPS 180-4).
"use strict";

const K = new Uint32Array(64);
const START = new Uint32Array(8);
{
  let found = 0;
  for (let n = 2; found < 64; n++) {
    let isPrime = true;
    for (let d = 2; d * d <= n; d++) if (n % d === 0) { isPrime = false; break; }
    if (!isPrime) continue;
    const part = (x) => Math.floor((x - Math.floor(x)) * 4294967296) >>> 0;
    if (found < 8) START[found] = part(Math.sqrt(n));
    K[found++] = part(Math.cbrt(n));
  }
}

const w = new Int32Array(64);

// The first word of the hash of a text of up to 2 blocks, in `octets` padded to 64 or 128.
function firstWords(octets, length, state) {
  const view = new DataView(octets.buffer);
  state.set(START);
  for (let block = 0; block < length; block += 64) {
    for (let i = 0; i < 16; i++) w[i] = view.getInt32(block + 4 * i);
    for (let i = 16; i < 64; i++) {
      const x = w[i - 15], y = w[i - 2];
      const a = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
      const b = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
      w[i] = (w[i - 16] + a + w[i - 7] + b) | 0;
    }
    let [a, b, c, d, e, f, g, h] = state;
    for (let i = 0; i < 64; i++) {
      const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + K[i] + w[i]) | 0;
      const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g; g = f; f = e; e = (d + t1) | 0; d = c; c = b; b = a; a = (t1 + t2) | 0;
    }
    state[0] += a; state[1] += b; state[2] += c; state[3] += d;
    state[4] += e; state[5] += f; state[6] += g; state[7] += h;
  }
  return state;
}

onmessage = (event) => {
  const challenge = event.data;
  const bits = Number(challenge.split(".")[0]);
  const encoder = new TextEncoder();
  const state = new Uint32Array(8);
  for (let number = 0; ; number++) {
    const text = encoder.encode(`${challenge}:${number}`);
    const length = text.length + 9 <= 64 ? 64 : 128;
    const octets = new Uint8Array(length);
    octets.set(text);
    octets[text.length] = 0x80;
    new DataView(octets.buffer).setUint32(length - 4, text.length * 8);
    const words = firstWords(octets, length, state);
    if (bits <= 32 ? words[0] >>> (32 - bits) === 0 : false) {
      postMessage(String(number));
      return;
    }
  }
};
