// Gets the fleet's state once a second and writes it into the page. Names chosen by users are inserted as text only.
"use strict";

(function () {
  const INTERVAL_MS = 1000;
  const page = document.getElementById("fleet");
  let seenAt = null;
  // Absolute without credentials: browsers refuse to fetch an address that contains a password.
  const absolute = (path) => window.location.origin + path;
  const number = (value, digits = 0) =>
    value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

  const percent = (share) => `${number(100 * share, 1)}%`;

  function duration(seconds) {
    if (seconds === null) return "—";
    if (seconds < 90) return `${number(seconds)} s`;
    if (seconds < 5400) return `${number(seconds / 60)} min`;
    return `${number(seconds / 3600, 1)} h`;
  }

  function size(bytes) {
    const gb = bytes / 1024 ** 3;
    if (!bytes) return "—";
    if (Number.isInteger(gb)) return `${number(gb)} GB`;
    return gb < 1 ? `${number(bytes / 1024 ** 2)} MB` : `${number(gb, 1)} GB`;
  }

  function put(id, text) {
    const element = document.getElementById(id);
    if (element.textContent !== text) element.textContent = text; // a screen reader reads out each change
  }

  // One card an item, created once and kept, so that unchanged cards do not move.
  function show(where, kind, items, key, fill) {
    const place = document.getElementById(where);
    const there = new Map([...place.children].map((card) => [card.dataset.key, card]));
    items.forEach((item, position) => {
      let card = there.get(item[key]);
      if (!card) {
        card = document.getElementById(`${kind}-template`).content.firstElementChild.cloneNode(true);
        card.dataset.key = item[key];
      }
      there.delete(item[key]);
      if (place.children[position] !== card) place.insertBefore(card, place.children[position] || null);
      fill(card, item);
    });
    there.forEach((card) => card.remove());
    document.getElementById(`${where}-empty`).hidden = items.length > 0;
  }

  function parts(card) {
    const part = (name) => card.querySelector(`[data-is="${name}"]`);
    return {
      part,
      text: (name, text) => { part(name).textContent = text; },
      width: (name, share) => { part(name).style.width = `${Math.min(100, 100 * share)}%`; },
      state: (state) => { part("state").textContent = state; card.dataset.state = part("state").dataset.state = state; },
      error: (message) => { part("error").textContent = message; part("error").hidden = !message; },
    };
  }

  function fillBatch(card, batch) {
    const { part, text, width, state, error } = parts(card);
    const finished = batch.generated + batch.failed;
    state(batch.state);
    text("source", batch.source || "batch");
    text("id", batch.id);
    const done = batch.total ? Math.floor((100 * finished) / batch.total) : 0;
    text("segments", `${number(finished)} of ${number(batch.total)}`);
    text("percent", `${done}%`);
    text("age", `${duration(batch.age_s)} ago`);
    text("speakers", number(batch.speakers));
    text("audio", duration(batch.audio_s));
    text("speed", batch.speed === null ? "—" : number(batch.speed, 1));
    text("left", duration(batch.left_s));
    part("speed-cell").hidden = part("left-cell").hidden = batch.closed;
    text("failed", number(batch.failed));
    part("failed").classList.toggle("bad", batch.failed > 0);
    text("attempts", batch.attempts === null ? "—" : number(batch.attempts, 2));
    text("suspects", number(batch.suspects));
    part("review-cell").hidden = !batch.reviewing;
    text("review", batch.reviewing);
    const rate = batch.error_rate;
    part("rate-cell").hidden = rate === null;
    const interval = rate && rate.low < rate.high ? ` (${percent(rate.low)} to ${percent(rate.high)})` : "";
    if (rate) text("rate", `${percent(rate.estimate)}${interval}`);
    width("done", batch.total ? batch.generated / batch.total : 0);
    width("lost", batch.total ? batch.failed / batch.total : 0);
    card.querySelector(".bar").setAttribute("aria-valuenow", done);
    card.querySelector(".bar").setAttribute("aria-label", `${done}% of batch ${batch.id}`);
    part("report").href = absolute(`${page.dataset.batch}${encodeURIComponent(batch.id)}`);
    part("report").setAttribute("aria-label", `Report of batch ${batch.id}`);
    part("result").href = `${part("report").href}.json`;
    part("result").setAttribute("aria-label", `Result of batch ${batch.id} as JSON`);
    part("links").hidden = !batch.has_result;
    error(batch.error);
  }

  function fillWorker(card, worker) {
    const { part, text, width, state, error } = parts(card);
    state(worker.state);
    text("title", `Worker ${worker.index} on ${worker.box}`);
    text("gpu", worker.gpu ? `${worker.gpu} (${worker.device})` : worker.device.toUpperCase());
    text("slots", `${number(worker.slots_used)} of ${number(worker.slots)}`);
    width("slots-bar", worker.slots ? worker.slots_used / worker.slots : 0);
    const total = worker.memory_total_bytes;
    text("memory", total ? `${number(worker.memory_bytes / 1024 ** 3, 1)} of ${size(total)}` : size(worker.memory_bytes));
    part("memory-bar").parentElement.style.visibility = total ? "visible" : "hidden";
    width("memory-bar", total ? worker.memory_bytes / total : 0);
    part("memory-bar").classList.toggle("full", Boolean(total) && worker.memory_bytes > 0.95 * total);
    part("use-row").hidden = worker.use === null;
    text("use", `${number(100 * (worker.use || 0))}%`);
    width("use-bar", worker.use || 0);
    text("frames", {
      gone: `last seen ${duration(worker.silent_s)} ago`,
      loading: "loads its model",
    }[worker.state] || `${number(worker.frames_s)} frames a second`);
    const loaded = worker.loads > 0 ? `loaded in ${duration(worker.load_s)}` : "";
    text("loads", worker.loads > 1 ? `${loaded}, ${worker.loads} loads` : loaded);
    text("name", `${worker.name} · ${worker.engine} · ${worker.checkpoint}`);
    text("warning", worker.warning);
    part("warning").hidden = !worker.warning;
    error(worker.error);
  }

  function fillCheck(row, failed) {
    const { text } = parts(row);
    text("check", failed.check);
    text("attempts", number(failed.attempts));
  }

  function fillLetter(card, letter) {
    const { text } = parts(card);
    text("reason", letter.reason);
    text("id", letter.id);
    text("age", `${duration(letter.age_s)} ago`);
    text("queue", `${letter.queue} · ${number(letter.bytes)} bytes`);
  }

  function sums(fleet) {
    const alive = fleet.workers.filter((worker) => worker.state !== "gone");
    const add = (items, key) => items.reduce((sum, item) => sum + item[key], 0);
    const gone = fleet.workers.length - alive.length;
    const loading = alive.filter((worker) => worker.state === "loading").length;
    document.getElementById("workers-card").className =
      `metric-card ${gone ? "metric-card-danger" : alive.length ? "metric-card-success" : ""}`;
    put("sum-workers", number(alive.length));
    put("sum-workers-note", [gone && `${gone} gone`, loading && `${loading} loading`].filter(Boolean).join(", "));
    put("sum-slots", number(add(alive, "slots_used")));
    put("sum-slots-note", `of ${number(add(alive, "slots"))}`);
    const frames = add(alive, "frames_s");
    put("sum-frames", number(frames));
    put("sum-frames-note", frames ? `${number(frames / fleet.frames_per_audio_s, 1)} × real time` : "");
    const failed = add(fleet.batches, "failed");
    put("sum-failed", number(failed));
    document.getElementById("failed-card").classList.toggle("metric-card-danger", failed > 0);
    put("sum-failed-note", failed ? `of ${number(failed + add(fleet.batches, "generated"))}` : "");
    const wait = (count, what) => count && `${number(count)} ${what}${count === 1 ? " waits" : "s wait"}`;
    const waiting = [wait(fleet.waiting, "chunk"), wait(fleet.takes_waiting, "take")].filter(Boolean).join(", ");
    put("batches-note", waiting && `${waiting} in queues`);
    put("fleet-name", fleet.fleet);
  }

  // On an error the last data stays, marked as old.
  function status(problem) {
    document.getElementById("fleet-dot").className = `status-dot ${problem ? "status-dot-error" : "status-dot-live"}`;
    put("fleet-status", problem ? "Offline" : "Live");
    const since = seenAt ? ` The data shown here is from ${seenAt.toLocaleTimeString()}.` : "";
    put("fleet-stale", `${problem}${since}`);
    document.getElementById("fleet-stale").hidden = !problem;
    page.classList.toggle("stale", Boolean(problem));
  }

  async function fetchFleet() {
    const response = await fetch(absolute(page.dataset.now), { cache: "no-store" }).catch(() => null);
    if (!response) throw new Error("Flower does not answer.");
    const fleet = await response.json().catch(() => ({ error: `status ${response.status}` }));
    if (!response.ok) throw new Error(`Flower cannot read the fleet's state: ${fleet.error}`);
    return fleet;
  }

  async function refresh() {
    try {
      const fleet = await fetchFleet();
      sums(fleet);
      show("batches", "batch", fleet.batches.filter((batch) => !batch.closed), "id", fillBatch);
      show("finished", "batch", fleet.batches.filter((batch) => batch.closed), "id", fillBatch);
      show("workers", "worker", fleet.workers, "name", fillWorker);
      show("checks", "check", fleet.failed_checks, "check", fillCheck);
      show("letters", "letter", fleet.dead_letters, "id", fillLetter);
      seenAt = new Date();
      status("");
    } catch (error) {
      status(error.message);
    }
    window.setTimeout(refresh, document.hidden ? 10 * INTERVAL_MS : INTERVAL_MS);
  }

  refresh();
})();
