
// Marks: bad or good, by segment. They stay in this browser, and are saved as a file for `cloner redo`.

const storageKey = `cloner-marks:${listing.batch}`;
const marks = new Map();

function loadMarks() {
  const kept = JSON.parse(localStorage.getItem(storageKey) ?? "{}");
  marks.clear();
  for (const [index, mark] of Object.entries(kept)) marks.set(Number(index), mark);
}

function readMarks() {
  try {
    loadMarks();
  } catch (error) {
    complain(`Marks cannot be kept in this browser: ${error.message}. Save them before you close the page.`);
  }
}

function setMark(row, mark) {
  readMarks(); // another tab may have set some
  if (marks.get(row.index) === mark) marks.delete(row.index);
  else marks.set(row.index, mark);
  try {
    localStorage.setItem(storageKey, JSON.stringify(Object.fromEntries(marks)));
  } catch (error) {
    complain(`Marks cannot be kept in this browser: ${error.message}. Save them before you close the page.`);
  }
  showMarks();
}

function complain(message) {
  element("problem").textContent = message;
  element("problem").hidden = false;
}

function marked(mark) {
  return [...marks].filter(([, value]) => value === mark).map(([index]) => index).sort((a, b) => a - b);
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
  element("save").textContent = marks.size ? `Save marks (${marks.size})` : "Save marks";
  element("save").disabled = !marks.size;
  for (const button of element("filters").children) button.count();
}
