// Shows the events of one deployment as they come.
//
// The browser itself comes back after a broken connection and tells the server the last event that it has seen. Only when it gives up (the
// server answered, but could not serve) is a connection made anew here. Messages are anybody's text: they are set as text, never as HTML.
"use strict";

const SHOWN_MAX = 500; // events on the page, and events that wait while it is paused
const SAY_EVERY_MS = 1_000; // a screen reader must be able to follow
const RETRY_MS = 1_000;

const at = (id) => document.getElementById(id);
const [list, pause] = [at("events"), at("pause")];
const deployment = new URLSearchParams(location.search).get("deployment");

let last = null; // position of the newest event seen
let count = 0;
let isPaused = false;
let waiting = []; // what came while it was paused

let said = 0;
let sayLater = 0;
function say(text, isBad = false) {
  clearTimeout(sayLater);
  const now = () => {
    said = Date.now();
    if (at("state").textContent !== text) at("state").textContent = text;
    at("state").classList.toggle("bad", isBad);
  };
  const wait = said + SAY_EVERY_MS - Date.now();
  if (wait <= 0) now();
  else sayLater = setTimeout(now, wait);
}

const plural = (number) => `${number.toLocaleString()} ${number === 1 ? "event" : "events"}`;

function tell() {
  const held = waiting.length ? `, ${waiting.length.toLocaleString()} held back` : "";
  say(isPaused ? `Paused: deployment ${deployment}${held}.` : `Following deployment ${deployment}: ${plural(count)}.`);
}

function time(element, milliseconds) {
  const moment = new Date(milliseconds);
  element.dateTime = moment.toISOString();
  element.textContent = moment.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

function show(event) {
  const item = at("event").content.cloneNode(true).firstElementChild;
  const part = (name) => item.querySelector(`.${name}`);
  item.dataset.position = event.position;
  part("message").textContent = event.message;
  part("id").textContent = `Event ${event.id}`;
  time(part("received"), event.received_at_ms);
  time(part("sent"), event.sent_at_ms);
  part("way").textContent = `${(event.received_at_ms - event.sent_at_ms).toLocaleString()} ms on the way`;
  item.classList.add("new");
  list.prepend(item);
  if (list.childElementCount > SHOWN_MAX) {
    list.lastElementChild.remove();
    at("more").hidden = false;
  }
}

function take(message) {
  const event = JSON.parse(message.data);
  if (last !== null && event.position <= last) return; // seen before
  last = event.position;
  count += 1;
  if (!isPaused) {
    show(event);
  } else {
    waiting.push(event);
    if (waiting.length > SHOWN_MAX) {
      waiting.shift();
      at("more").hidden = false;
    }
  }
  tell();
}

/** The log does not have what was seen here: it is another one. */
function anew() {
  last = null;
  count = 0;
  waiting = [];
  list.replaceChildren();
  at("more").hidden = true;
  at("anew").textContent = "The log was made again or put back to an earlier time, so this page has begun anew: events may be missing.";
}

function connect() {
  const after = last === null ? "" : `?after=${last}`;
  const source = new EventSource(`events/${encodeURIComponent(deployment)}${after}`);
  source.addEventListener("open", tell);
  source.addEventListener("message", take);
  source.addEventListener("beyond", () => {
    source.close(); // it would tell again what was seen
    anew();
    connect();
  });
  source.addEventListener("error", () => {
    say("The server does not answer; trying again.", true);
    if (source.readyState !== EventSource.CLOSED) return;
    setTimeout(connect, RETRY_MS);
  });
}

pause.addEventListener("click", () => {
  isPaused = !isPaused;
  pause.setAttribute("aria-pressed", String(isPaused));
  if (!isPaused) {
    waiting.forEach(show);
    waiting = [];
  }
  tell();
});

fetch("deployments").then((answer) => answer.json()).then((ids) => {
  at("deployments").replaceChildren(...ids.map((id) => new Option(String(id), String(id))));
}).catch(() => {}); // they are only proposals

const isDeployment = /^[1-9][0-9]{0,15}$/.test(deployment ?? "") && Number(deployment) <= Number.MAX_SAFE_INTEGER;
if (deployment && !isDeployment) {
  say("That is not a deployment: a number from 1 on is wanted.", true);
} else if (deployment) {
  at("deployment").value = deployment;
  document.title = `Activity of deployment ${deployment}`;
  at("heading").hidden = pause.hidden = false;
  say(`Looking for deployment ${deployment}.`);
  connect();
}
