// Which parts of a text refer to a source, and which sentence of the source they mean.

const MARKER = /\[(\d{1,3})\]/g;
const SENTENCE = /[^.!?。！？\n]+(?:[.!?。！？]+|\n|$)\s*/g;
const WORD = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]+|[\p{L}\p{N}]+/gu;
const UNSPACED = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]/u;

// The markers of `text` that name one of the `sources`: [{start, end, source, citation}]. The server counts characters, a script counts
// in UTF-16, where a rare character takes two places.
export function markers(text, sources, citations) {
  const at = places(text);
  const checked = new Map(citations.map((citation) => [at(citation.start), citation]));
  return [...text.matchAll(MARKER)].flatMap((found) => {
    const source = sources.find((one) => one.number === Number(found[1]));
    return source ? [{ start: found.index, end: found.index + found[0].length, source, citation: checked.get(found.index) }] : [];
  });
}

function places(text) {
  const starts = [];
  let place = 0;
  for (const character of text) {
    starts.push(place);
    place += character.length;
  }
  return (offset) => starts[offset] ?? place;
}

// The sentence of the answer that the marker at `start` stands behind.
export function claim(text, start) {
  const before = text.slice(0, start).replace(MARKER, " ").replace(/[\s.!?。！？]+$/u, "");
  return before.split(/[.!?。！？\n]/).pop().trim();
}

// Where in `passage` the sentence stands that shares most words with `claimed`: [start, end], or null if none shares any.
export function closest(passage, claimed) {
  const wanted = units(claimed);
  let best = null;
  let most = 0;
  for (const found of passage.matchAll(SENTENCE)) {
    const own = units(found[0]);
    const shared = [...own].filter((unit) => wanted.has(unit)).length;
    const score = shared / Math.sqrt(own.size || 1);
    if (score > most) {
      most = score;
      best = [found.index, found.index + found[0].trimEnd().length];
    }
  }
  return best;
}

// Words in lower case; of scripts without spaces, pairs of characters.
function units(text) {
  const found = new Set();
  for (const [word] of text.toLowerCase().matchAll(WORD)) {
    if (!UNSPACED.test(word) || word.length === 1) found.add(word);
    else for (let place = 0; place + 1 < word.length; place += 1) found.add(word.slice(place, place + 2));
  }
  return found;
}
