
// Marks: bad or good, by segment. They stay in this browser, and are saved as a file for `cloner redo`.

const storageKey = `cloner-marks:${listing.batch}`;
const marks = new Map(); // what `markKey` returns -> "bad" or "good"
let isStored = true;

// A mark is of one take: what was marked before a redo is not redone by the next.
function markKey(row) {
  return `${row.index} ${row.take ?? 1}`;
}

function markOf(row) {
  return marks.get(markKey(row));
}

function readMarks() {
  try {
    const stored = Object.entries(JSON.parse(localStorage.getItem(storageKey) ?? "{}"));
    marks.clear();
    for (const [key, mark] of stored) marks.set(key, mark);
  } catch (error) {
    complainOfStorage(error);
  }
}

function setMark(row, mark) {
  if (isStored) readMarks(); // another tab may have set some
  if (markOf(row) === mark) marks.delete(markKey(row));
  else marks.set(markKey(row), mark);
  try {
    localStorage.setItem(storageKey, JSON.stringify(Object.fromEntries(marks)));
    isStored = true;
  } catch (error) {
    complainOfStorage(error);
  }
  showMarks();
}

function complainOfStorage(error) {
  isStored = false;
  complain(`Marks cannot be kept in this browser: ${error.message}. Save them before you close the page.`);
}

function complain(message) {
  element("problem").textContent = message;
  element("problem").hidden = false;
}

// Segments by their numbers. One beyond those that JavaScript has is a text in the listing: `cloner redo` gets its output.
function marked(mark) {
  const rows = listing.rows.filter((row) => markOf(row) === mark);
  return rows.map((row) => (typeof row.index === "string" ? row.output : row.index));
}

function save() {
  const text = JSON.stringify({ batch: listing.batch, bad: marked("bad"), good: marked("good") });
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: "application/json" })) });
  link.download = `marked-${listing.batch}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function showMarks() {
  for (const row of items.keys()) showMark(row);
  const count = listing.rows.filter(markOf).length;
  element("save").textContent = count ? `Save marks (${count})` : "Save marks";
  element("save").disabled = !count;
  for (const button of element("filters").children) button.count();
}
