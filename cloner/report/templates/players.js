// The script of a stored report, in three files: players, marks, list.
"use strict";

const listing = JSON.parse(document.getElementById("listing").textContent);
const element = (id) => document.getElementById(id);
const audio = new Audio();
let playing = null; // the player whose file `audio` has
let frame = 0; // in which its progress is drawn next

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Files are relative to the output root, two folders above this page.
function address(path) {
  return "../../" + path.split("/").map(encodeURIComponent).join("/");
}

function seconds(value) {
  const whole = Math.round(value);
  return value < 60 ? `${value.toFixed(1)} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

// Players: a button and a waveform. All share one audio element.

function outline(peaks) {
  const levels = Array.from(atob(peaks), (byte) => byte.charCodeAt(0) / 255);
  return levels.map((level, at) => {
    const half = Math.max(0.4, 15 * level);
    return `M${at + 0.5} ${(16 - half).toFixed(1)}v${(2 * half).toFixed(1)}`;
  }).join("");
}

function wave(peaks) {
  const namespace = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(namespace, "svg");
  svg.setAttribute("viewBox", "0 0 100 32");
  svg.setAttribute("preserveAspectRatio", "none");
  for (const part of ["all", "played"]) {
    const path = document.createElementNS(namespace, "path");
    path.setAttribute("class", part);
    path.setAttribute("d", peaks ? outline(peaks) : "M0 16H100");
    svg.append(path);
  }
  return svg;
}

function makePlayer(path, peaks, label) {
  const player = make("span", { className: "player" });
  const button = make("button", { type: "button", className: "play", title: `Play ${label}` });
  button.setAttribute("aria-label", `Play ${label}`);
  button.addEventListener("click", () => toggle(player));
  player.address = address(path);
  player.append(button);
  if (peaks !== null) {
    const bars = make("span", { className: "wave" }, wave(peaks));
    bars.addEventListener("click", (event) => seekTo(player, event.offsetX / bars.clientWidth));
    player.append(bars);
  }
  return player;
}

function take(player) {
  if (playing === player) return;
  audio.pause();
  show(0, false);
  playing = player;
  audio.onloadedmetadata = null;
  audio.src = player.address;
  element("problem").hidden = true;
}

function toggle(player) {
  take(player);
  if (audio.paused) play();
  else audio.pause();
}

function play() {
  // What cannot be played is an event of the audio, too, and a player that another replaces has not failed.
  audio.play().catch((error) => { if (error.name === "NotAllowedError") complain(error.message); });
}

function seekTo(player, part) {
  take(player);
  audio.onloadedmetadata = () => { audio.currentTime = part * audio.duration; };
  if (audio.duration) audio.onloadedmetadata();
  play();
}

function show(part, isPlaying) {
  if (!playing) return;
  playing.style.setProperty("--played", `${100 * part}%`);
  playing.classList.toggle("is-playing", isPlaying);
}

function follow() {
  cancelAnimationFrame(frame);
  show(audio.duration ? audio.currentTime / audio.duration : 0, !audio.paused);
  if (!audio.paused) frame = requestAnimationFrame(follow);
}
