// Numbers and tokens as a reader sees them.

const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

function count(n) {
  return plain.format(n);
}

function fixed(x, digits = 2) {
  if (!Number.isFinite(x)) return x > 0 ? "∞" : x < 0 ? "−∞" : "–";
  return x.toFixed(digits).replace("-", "−");
}

function percent(share) {
  const x = 100 * share;
  return `${x === 0 || x >= 9.95 ? x.toFixed(0) : x >= 0.1 ? x.toFixed(1) : x.toPrecision(1)} %`;
}

function ordinal(n) {
  const tens = n % 100;
  const end = tens > 10 && tens < 14 ? "th" : (["th", "st", "nd", "rd"][n % 10] ?? "th");
  return count(n) + end;
}

// A character that would not be seen, or would move or turn those beside it: one that can be seen.
function asVisible(character) {
  const code = character.codePointAt(0);
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  if (code === 0x7f) return "␡";
  return `⟨${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
}

const JOINER = "(?<=\\p{Extended_Pictographic}\\uFE0F?)\\u200D(?=\\p{Extended_Pictographic})";
const UNSEEN = new RegExp(`(${JOINER})|[\\p{Cc}\\p{Cf}\\p{Cs}\\p{Co}\\p{Zl}\\p{Zp}]`, "gu");

// A token as it stands in the text. Joiners inside an emoji stay, what else is unseen is shown.
function shown(token) {
  return token.replace(UNSEEN, (character, joiner) => joiner ?? asVisible(character));
}

// A token by itself, where a blank would not be seen.
function named(token) {
  if (token === "\n" || token === "<eos>") return "↵ end of line";
  if (/^\s+$/u.test(token)) return token === " " ? "␣ blank" : shown(token);
  return shown(token);
}

function endsLine(token) {
  return token === "\n" || token === "<eos>";
}
