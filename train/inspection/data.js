// The data of the page, its arrays unpacked.

const KINDS = { uint8: Uint8Array, int32: Int32Array, float32: Float32Array };

async function unpackedArray({ type, data }) {
  const letters = atob(data);
  const packed = new Uint8Array(letters.length);
  for (let at = 0; at < letters.length; at += 1) packed[at] = letters.charCodeAt(at);
  const bytes = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new KINDS[type](await new Response(bytes).arrayBuffer());
}

// The same with a typed array wherever a packed one stands.
async function unpacked(value) {
  if (Array.isArray(value)) return Promise.all(value.map(unpacked));
  if (value === null || typeof value !== "object") return value;
  if (value.type in KINDS) return unpackedArray(value);
  const entries = Object.entries(value).map(async ([key, part]) => [key, await unpacked(part)]);
  return Object.fromEntries(await Promise.all(entries));
}

// One model's view of the text.
class Run {
  constructor(data, page) {
    Object.assign(this, data);
    this.page = page;
    this.size = page.tokens.length;
    this.k = this.best.length / this.size;
    this.near = new Map();
    if (this.neighbours) {
      this.neighbours.words.forEach((word, row) => this.near.set(word, row));
    }
  }

  // The guesses in the place of token i, the likeliest first.
  guesses(i) {
    const found = [];
    for (let at = i * this.k; at < (i + 1) * this.k; at += 1) {
      const word = this.best[at];
      const came = word === this.page.ids[i];
      found.push({ word: this.page.words[word], p: 2 ** -this.best_bits[at], came });
    }
    return found;
  }

  // The words nearest to a word in the embedding, with their cosines.
  nearest(word) {
    const row = this.near.get(word);
    if (row === undefined) return [];
    const k = this.neighbours.near.length / this.neighbours.words.length;
    const found = [];
    for (let at = row * k; at < (row + 1) * k; at += 1) {
      found.push({ word: this.neighbours.near[at], cosine: this.neighbours.cosine[at] });
    }
    return found;
  }

  quantity({ layer, quantity }) {
    return this.layers[layer].quantities.find(({ name }) => name === quantity);
  }

  // Where a unit is kept: those that were found by themselves, in finer steps.
  kept(unit) {
    const found = this.found
      .flatMap(({ units }) => units)
      .find((u) => u.layer === unit.layer && u.quantity === unit.quantity && u.number === unit.number);
    return found ? { ...found.fine, at: 0 } : { ...this.quantity(unit), at: unit.number };
  }

  // What a unit held after every token.
  series(unit) {
    const { low, step, codes, at } = this.kept(unit);
    const own = codes.subarray(at * this.size, (at + 1) * this.size);
    return Float32Array.from(own, (code) => low[at] + step[at] * code);
  }

  // By how much a value of `series` may be off.
  error(unit) {
    const { step, at } = this.kept(unit);
    return step[at] / 2;
  }

  unitName({ layer, quantity, number }) {
    const where = this.layers.length > 1 ? `layer ${layer + 1}, ` : "";
    return `${where}${this.quantity({ layer, quantity }).letter} ${number}`;
  }
}
