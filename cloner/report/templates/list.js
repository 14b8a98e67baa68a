
// The list of segments: rows, filters, keys.

const PAGE_ROWS = 50; // as many are added when the end of the list is scrolled to
const items = new Map(); // row -> its list item, once it was scrolled to
let shown = [];
let listed = 0; // how many of `shown` have their items in the list
let current = null; // the row that keys act on

function facts(row) {
  const speaker = listing.speakers[row.speaker];
  const line = make("p", { className: "facts" });
  line.append(make("span", { textContent: `#${row.index}` }), make("bdi", { textContent: speaker.id }));
  if (row.id) line.append(make("bdi", { textContent: row.id }));
  if (row.seconds) line.append(make("span", { textContent: seconds(row.seconds) }));
  if (row.onlyBeginning) line.append(make("span", { textContent: "only the words of its beginning are reviewed" }));
  const again = row.takeBefore ? ` (take ${row.takeBefore} again)` : "";
  if (row.take) line.append(make("span", { textContent: `take ${row.take}${again}` }));
  const file = row.error ? "span" : "a";
  line.append(make(file, { className: "file", textContent: row.output }));
  if (!row.error) line.lastChild.href = address(row.output);
  if (speaker.reference) {
    const reference = makePlayer(speaker.reference, null, `the reference of ${speaker.id}`);
    line.append(make("span", { className: "reference-player" }, reference, "reference"));
  }
  return line;
}

function words(row) {
  const box = make("div", { className: "words" });
  if (row.suspicion > 1) {
    const before = row.failedBefore && `not heard by the review, and the take before failed ${row.failedBefore.join(", ")}`;
    const reasons = [row.failed?.join(", "), before].filter(Boolean).join("; ");
    box.append(make("span", { className: "pill warn", textContent: `suspect${reasons && `: ${reasons}`}` }));
  }
  if (row.error) box.append(make("span", { className: "pill bad", textContent: "failed" }));
  box.append(make("p", { className: "text", dir: "auto", textContent: row.text ?? row.output }));
  if (row.error) box.append(make("p", { className: "error", textContent: row.error }));
  box.append(facts(row));
  return box;
}

function markButtons(row) {
  const button = (mark) => {
    const made = make("button", { type: "button", className: `mark ${mark}`, textContent: mark, title: `Key ${mark[0].toUpperCase()}` });
    made.addEventListener("click", () => setMark(row, mark));
    return made;
  };
  return make("div", { className: "marks" }, button("bad"), button("good"));
}

function makeItem(row) {
  const item = Object.assign(make("li", { tabIndex: -1 }), { row });
  const player = row.error ? make("span") : makePlayer(row.output, row.peaks ?? "", `segment ${row.index}`);
  item.append(player, words(row), markButtons(row));
  if (row.others) {
    const others = row.others.map((other) =>
      make("span", { className: "other" }, make("span", { className: "label", textContent: other.label }),
        makePlayer(other.path, other.peaks ?? "", `${other.label} of segment ${row.index}`)));
    item.append(make("div", { className: "others" }, ...others));
  }
  items.set(row, item);
  showMark(row);
  return item;
}

function showMark(row) {
  const item = items.get(row);
  item.dataset.mark = markOf(row) ?? "";
  for (const button of item.querySelectorAll(".mark")) {
    button.setAttribute("aria-pressed", String(button.classList.contains(item.dataset.mark)));
  }
}

// The row that keys act on; null if they act on none.
function choose(row) {
  items.get(current)?.removeAttribute("aria-current");
  current = row;
  items.get(current)?.setAttribute("aria-current", "true");
}

function select(row) {
  while (listed <= shown.indexOf(row)) listMore();
  choose(row);
  const item = items.get(row);
  item.focus({ preventScroll: true });
  item.scrollIntoView({ block: "nearest" });
}

// What is shown, and in which order.

// Failures come between suspects, whose score is above 1, and the rest.
function doubt(row) {
  return row.error ? 1 : row.suspicion ?? 0;
}

const filters = {
  All: () => true,
  Suspects: (row) => row.suspicion > 1,
  Failed: (row) => Boolean(row.error),
  Bad: (row) => markOf(row) === "bad",
  Good: (row) => markOf(row) === "good",
  Unmarked: (row) => !markOf(row),
};
const orders = {
  "By suspicion": (a, b) => doubt(b) - doubt(a) || a.index - b.index,
  "In batch order": (a, b) => a.index - b.index,
  "By length": (a, b) => (b.seconds ?? 0) - (a.seconds ?? 0) || a.index - b.index,
};
let filter = "All";

function isFound(row, wanted) {
  row.words ??= [row.text ?? "", listing.speakers[row.speaker].id, row.output, row.id ?? "", `#${row.index}`].join("\n").toLowerCase();
  return row.words.includes(wanted);
}

function showRows() {
  const wanted = element("search").value.trim().toLowerCase();
  const speaker = element("speaker").value;
  shown = listing.rows.filter((row) =>
    filters[filter](row) && (!speaker || row.speaker === Number(speaker)) && isFound(row, wanted));
  shown.sort(orders[element("order").value]);
  if (!shown.includes(current)) choose(null);
  listed = 0;
  element("rows").replaceChildren();
  listMore();
  element("rows").hidden = !shown.length;
  element("nothing").hidden = Boolean(shown.length);
  const all = listing.rows.length.toLocaleString("en");
  element("found").textContent = `${shown.length.toLocaleString("en")} of ${all}`;
}

const atEnd = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    atEnd.unobserve(entry.target);
    if (entry.target === element("rows").lastChild) listMore();
  }
}, { root: element("rows"), rootMargin: "800px" });

function listMore() {
  const next = shown.slice(listed, listed + PAGE_ROWS);
  listed += next.length;
  element("rows").append(...next.map((row) => items.get(row) ?? makeItem(row)));
  if (listed < shown.length) atEnd.observe(element("rows").lastChild);
}

function filterButton(name) {
  const button = make("button", { type: "button" });
  button.count = () => {
    const count = listing.rows.filter(filters[name]).length;
    button.textContent = name === "All" ? name : `${name} ${count.toLocaleString("en")}`;
    button.setAttribute("aria-pressed", String(filter === name));
    button.hidden = !count && (name === "Suspects" || name === "Failed");
  };
  button.addEventListener("click", () => {
    filter = name;
    showMarks();
    showRows();
  });
  return button;
}

// Keys.

function step(by) {
  const at = shown.indexOf(current);
  const next = at < 0 ? shown[0] : shown[at + by];
  if (next) select(next);
}

function toggleCurrent() {
  const item = items.get(current);
  const player = item?.contains(playing) ? playing : item?.querySelector(":scope > .player");
  if (player) toggle(player);
}

function move(by) {
  if (playing && audio.duration) audio.currentTime = Math.min(Math.max(0, audio.currentTime + by), audio.duration);
}

const keys = {
  ArrowDown: () => step(1),
  ArrowUp: () => step(-1),
  ArrowLeft: () => move(-1),
  ArrowRight: () => move(1),
  " ": toggleCurrent,
  b: () => current && setMark(current, "bad"),
  g: () => current && setMark(current, "good"),
};

function press(event) {
  const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  const isElsewhere = event.target.closest("input, select, summary, audio, a") || (event.key === " " && event.target.closest("button"));
  if (!action || isElsewhere || event.ctrlKey || event.metaKey || event.altKey) return;
  if (!current && element("rows").getBoundingClientRect().top > innerHeight) return; // the page scrolls
  event.preventDefault();
  action();
}

function start() {
  element("rows").addEventListener("click", (event) => {
    const item = event.target.closest("li");
    if (item && !event.target.closest("a")) select(item.row);
  });
  element("speaker").append(...listing.speakers.map((speaker, at) => make("option", { value: at, textContent: speaker.id })));
  element("speaker").hidden = listing.speakers.length < 2;
  const names = Object.keys(orders).slice(listing.judged ? 0 : 1);
  element("order").append(...names.map((name) => make("option", { textContent: name })));
  element("filters").append(...Object.keys(filters).map(filterButton));
  for (const id of ["search", "speaker", "order"]) element(id).addEventListener("input", showRows);
  element("save").addEventListener("click", save);
  for (const name of ["play", "pause", "seeked", "ended"]) audio.addEventListener(name, follow);
  audio.addEventListener("error", () => complain(`${decodeURIComponent(playing.address)} cannot be played: it is not there, or of a format that this browser does not play.`));
  addEventListener("storage", (event) => {
    if (event.key !== storageKey) return;
    readMarks();
    showMarks();
  });
  document.addEventListener("keydown", press);
  element("controls").hidden = !listing.rows.length;
  readMarks();
  showMarks();
  showRows();
}

start();
