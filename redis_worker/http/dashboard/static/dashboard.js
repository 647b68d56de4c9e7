// The page: its state, the connection, and what buttons do.

import { h, show, count } from "./dom.js";
import { VIEWS, view } from "./views.js";
import { draw, redraw } from "./charts.js";

const CHANNEL = "redis_worker.status";
const SILENCE = 4000; // ms without a reading after which the connection counts as lost
const state = { about: null, now: null, history: null, route: { name: "", item: null }, lists: {}, search: "", group: "", lostAt: null };
const $ = (id) => document.getElementById(id);

// The token

let token = sessionStorage.getItem("token") ?? "";
if (location.hash.startsWith("#token=")) {
  setToken(decodeURIComponent(location.hash.slice(7)));
  history.replaceState(null, "", "#/");
}

function setToken(text) {
  token = text;
  if (text) sessionStorage.setItem("token", text);
  else sessionStorage.removeItem("token");
}

async function request(path, body) {
  const headers = { ...(token && { Authorization: `Bearer ${token}` }), ...(body && { "Content-Type": "application/json", "X-Redis-Worker": "1" }) };
  const answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), cache: "no-store", credentials: "omit" });
  const found = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
  if (!answer.ok) throw Object.assign(new Error(found.error), { status: answer.status });
  return found;
}

function login(text) {
  $("login-text").textContent = text;
  $("login-token").value = "";
  if (!$("login").open) $("login").showModal();
}

$("login-do").addEventListener("click", async () => {
  setToken($("login-token").value.trim());
  try {
    const { about } = await request("/api/fleet");
    if (!about.may_change) throw new Error("This is not the token of this server.");
    state.about = about;
    $("login").close();
    connect();
    render();
  } catch (error) {
    setToken("");
    login(error.status === 401 ? "This is not the token of this server." : error.message);
  }
});
$("login-token").addEventListener("keydown", (event) => event.key === "Enter" && $("login-do").click());
$("token").addEventListener("click", () => {
  if (!token) return login("With the token of this server you can requeue, delete, pause, resume, cancel and run.");
  setToken("");
  if (state.about) state.about.may_change = false;
  render();
});

// The connection: a first reading with the history, then one each half second over the socket

let socket = null, waiting = null, heard = 0, pause = 500;

async function connect() {
  clearTimeout(waiting);
  if (socket) socket.onclose = null;
  socket?.close();
  socket = null;
  try {
    const { about, now } = await request("/api/fleet");
    state.about = about;
    state.history = now.history;
    take(now);
  } catch (error) {
    if (error.status === 401) {
      lose();
      return login("This page shows nothing without the token of this server.");
    }
    return again();
  }
  const bearer = token ? [`bearer.${btoa(String.fromCharCode(...new TextEncoder().encode(token))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "")}`] : [];
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`, ["redis_worker", ...bearer]);
  socket.onopen = () => socket.send(JSON.stringify({ subscribe: [CHANNEL] }));
  socket.onmessage = ({ data }) => {
    const { events } = JSON.parse(data);
    pause = 500;
    if (events) take(events.at(-1).data);
  };
  socket.onclose = again;
}

function again() {
  lose();
  clearTimeout(waiting);
  waiting = setTimeout(connect, pause);
  pause = Math.min(pause * 1.5, 5000);
}

function lose() {
  state.lostAt ??= Date.now();
  render();
}

function take(now) {
  heard = Date.now();
  state.lostAt = null;
  if (now.status) state.now = now;
  state.problem = now.problem ?? null;
  const { history } = state, { numbers } = now;
  if (!now.problem && history && numbers && (history.points.at(-1)?.[0] ?? 0) < numbers.at - 0.9) {
    history.points.push(history.names.map((name) => numbers[name]));
    if (history.points.length > 900) history.points.shift();
  }
  refresh();
  render();
}

setInterval(() => {
  if (!state.lostAt && heard && Date.now() - heard > SILENCE) {
    again();
  } else if (state.lostAt) render();
}, 1000);
addEventListener("online", () => connect());
document.addEventListener("visibilitychange", () => !document.hidden && state.lostAt && connect());

// Lists of the view, read again when their numbers change

const LISTS = { waiting: "waiting", delayed: "delayed", dead: "dead" };
let listed = {};

function wanted() {
  const { name, item } = state.route;
  if (name === "queue") return Object.keys(LISTS);
  return name === "failures" && item ? ["dead"] : [];
}

function refresh(force) {
  const queue = state.route.item, found = state.now?.status.queues.find((each) => each.name === queue);
  for (const kind of wanted()) {
    const mark = JSON.stringify([queue, found?.[LISTS[kind]], kind === "dead" && [state.search, state.group]]);
    const last = listed[kind];
    if (last?.mark === mark && !force) continue;
    if (last?.busy || (last && last.queue === queue && last.search === state.search + state.group && !force && Date.now() - last.at < 1000)) continue;
    listed[kind] = { mark, at: Date.now(), busy: true, queue, search: state.search + state.group };
    load(kind, queue, listed[kind]);
  }
}

async function load(kind, queue, mine) {
  const query = new URLSearchParams({ queue, ...(kind === "dead" && { search: state.search, group: state.group }) });
  const list = await request(`/api/${kind}?${query}`).then((data) => ({ data }), (error) => ({ error: error.message }));
  mine.busy = false;
  if (queue !== state.route.item) return;
  const wholes = new Map((state.lists[kind]?.data?.letters ?? []).filter((letter) => letter.whole !== undefined).map((letter) => [letter.key, letter.whole]));
  for (const letter of list.data?.letters ?? []) if (wholes.has(letter.key)) letter.whole = wholes.get(letter.key);
  state.lists[kind] = list;
  render();
  if (mine.search !== state.search + state.group) refresh();
}

// Actions

const ASK = {
  purge: (values) => [`Delete ${count(Number(values.count))} waiting tasks?`, `They are deleted from ${values.queue}, and never run. Tasks in flight, delayed tasks and dead letters stay.`, "Delete them"],
  cancel: (values) => ["Cancel this delayed task?", `It is deleted from ${values.queue}, and never runs.`, "Cancel it"],
  bury: (values) => [values.key ? "Delete this dead letter?" : `Delete ${count(Number(values.count))} dead letters?`, `They are deleted from ${values.queue}, with their tasks.`, "Delete"],
  requeue: (values) => (values.key ? null : [`Requeue ${count(Number(values.count))} tasks?`, `They go back on ${values.queue}, with all attempts again.`, "Requeue"]),
};

async function act(action, values) {
  if (action === "group") {
    state.group = state.group === values.group ? "" : values.group;
    refresh();
    return render();
  }
  if (action === "whole") return whole(values);
  if (!token || !state.about?.may_change) {
    toast("Nothing was changed: a change needs the token.", true);
    return login("Nothing was changed: a change needs the token of this server.");
  }
  const question = ASK[action]?.(values);
  if (question && !(await sure(...question))) return;
  const body = { queue: values.queue, app: values.app, name: values.name, ...(values.key ? { keys: [values.key] } : { search: values.search, group: values.group }) };
  try {
    toast((await request(`/api/do/${action}`, body)).done);
    refresh(true);
  } catch (error) {
    toast(error.message === "Failed to fetch" ? "Nothing is known: the connection to the server was lost." : `Nothing was changed: ${error.message}`, true);
    if (error.status === 401) login("Nothing was changed: this is not the token of this server.");
  }
}

async function whole({ queue, key }) {
  const found = await request(`/api/letter?${new URLSearchParams({ queue, key })}`).catch((error) => toast(error.message, true));
  const letter = state.lists.dead?.data?.letters.find((each) => each.key === key);
  if (found && letter) letter.whole = found.payload;
  render();
}

function sure(title, text, verb) {
  $("confirm-title").textContent = title;
  $("confirm-text").textContent = text;
  $("confirm-do").textContent = verb;
  $("confirm").showModal();
  return new Promise((resolve) => {
    $("confirm-do").onclick = () => { resolve(true); $("confirm").close(); };
    $("confirm").onclose = () => resolve(false);
  });
}

function toast(text, bad) {
  const shown = h("div", { class: `toast ${bad ? "bad" : ""}` }, text);
  $("toasts").append(shown);
  setTimeout(() => shown.remove(), bad ? 10000 : 5000);
}

document.addEventListener("click", (event) => {
  const target = event.target.closest("[data-action]");
  if (target) act(target.dataset.action, { ...target.dataset });
  if (event.target.closest("[data-close]")) event.target.closest("dialog").close();
});
document.addEventListener("input", (event) => {
  if (event.target.id !== "search") return;
  state.search = event.target.value;
  refresh();
});
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, textarea") || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.key === "/" && $("search")) {
    event.preventDefault();
    $("search").focus();
  }
  const chosen = VIEWS[Number(event.key) - 1];
  if (chosen) location.hash = `#/${chosen[0]}`;
});

// Theme: the system's, until another is chosen

const THEMES = ["auto", "light", "dark"];
let theme = localStorage.getItem("theme") ?? "auto";

function setTheme(name) {
  theme = name;
  localStorage.setItem("theme", name);
  document.documentElement.dataset.theme = name;
  $("theme").setAttribute("aria-label", `Theme: ${name}`);
  $("theme").title = `Theme: ${name}`;
  redraw();
  render();
}
$("theme").addEventListener("click", () => setTheme(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTheme(theme));

// Showing

function route() {
  const [, name = "", item] = location.hash.split("/");
  const before = state.route;
  state.route = { name, item: item ? decodeURIComponent(item) : null };
  if (name !== before.name || state.route.item !== before.item) Object.assign(state, { lists: {}, search: "", group: "" }), (listed = {});
  refresh();
  render();
}

function render() {
  if (!render.asked) requestAnimationFrame(paint);
  render.asked = true;
}

function paint() {
  render.asked = false;
  const { about, now, lostAt, problem, history } = state;
  const changes = Boolean(token && about?.may_change);
  $("name").textContent = about?.name ?? "redis_worker";
  $("redis").textContent = about?.redis ?? "";
  document.title = `${lostAt || problem ? "(!) " : ""}${about?.name ?? "redis_worker"} · redis_worker`;
  $("token").textContent = changes ? "Changes allowed" : "Read only";
  $("token").title = changes ? "Forget the token" : "Enter the token, to change something";
  $("link").className = `pill ${lostAt || problem ? "bad" : "good"}`;
  $("link").textContent = lostAt ? "connection lost" : problem ? "Redis is away" : now ? "live" : "connecting";
  document.body.classList.toggle("old", Boolean(lostAt || problem));
  const text = lostAt ? `The connection to the server was lost ${Math.round((Date.now() - lostAt) / 1000)} s ago. The figures below are old. Trying again …` : problem ? `${problem}. The figures below are old. Trying again …` : "";
  $("banner").hidden = !text;
  if ($("banner").textContent !== text) $("banner").textContent = text;
  if (state.route.name === "failures" && !state.route.item && now) {
    const worst = now.status.queues.filter((queue) => queue.dead).sort((one, two) => two.dead - one.dead)[0];
    if (worst) return location.replace(`#/failures/${encodeURIComponent(worst.name)}`);
  }
  const current = state.route.name === "queue" ? "queues" : state.route.name;
  const dead = now?.status.queues.reduce((total, queue) => total + queue.dead, 0);
  show($("nav"), VIEWS.map(([name, label]) => h("a", { href: `#/${name}`, "data-node": label, "aria-current": name === current ? "page" : null }, label, name === "failures" && dead ? h("b", { class: "badge bad" }, count(dead)) : null)));
  if (now) {
    show($("main"), view(state));
    if (history) draw(history);
  }
}

addEventListener("hashchange", () => { route(); scrollTo(0, 0); });
setTheme(theme);
route();
connect();
