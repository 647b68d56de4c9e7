// What is shown for a state: functions from the state to elements. They ask for nothing and change nothing.

import { h, count, rate, span, when, clock, size } from "./dom.js";
import * as charts from "./charts.js";

export const VIEWS = [["", "Overview"], ["queues", "Queues"], ["workers", "Workers"], ["failures", "Failures"], ["cron", "Cron"], ["parts", "Parts"]];

const queueLink = (name, text) => h("a", { href: `#/queue/${encodeURIComponent(name)}` }, text ?? name);
const button = (action, label, values = {}, look = "") =>
  h("button", { type: "button", class: look, "data-action": action, ...Object.fromEntries(Object.entries(values).map(([name, value]) => [`data-${name}`, value])) }, label);
const badge = (text, look) => h("span", { class: `badge ${look || ""}` }, text);

// A table: columns are [label, look, cell], where look is "n" for numbers, "w" for long text.
function table(columns, rows, keyOf, empty) {
  if (!rows.length) return h("p", { class: "muted" }, empty);
  return h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, columns.map(([label, look]) => h("th", { class: look, scope: "col" }, label)))),
    h("tbody", {}, rows.map((row) => h("tr", { "data-node": keyOf(row) }, columns.map(([label, look, cell]) => h("td", { class: look, "data-label": label }, cell(row))))))));
}

const section = (title, ...content) => h("section", {}, h("h2", {}, title), content);

function tile(label, value, note, look) {
  return h("div", { class: `tile ${look || ""}` }, h("div", { class: "label" }, label), h("div", { class: "value" }, value), h("div", { class: "note" }, note || "\u00a0"));
}

// Overview

function tiles({ status, numbers }) {
  const sum = (name) => status.queues.reduce((total, queue) => total + queue[name], 0);
  const alive = status.workers.filter((worker) => worker.alive).length;
  const stale = status.workers.length - alive;
  const redelivered = status.workers.reduce((total, worker) => total + (worker.counters.redelivered || 0), 0);
  const running = status.workers.reduce((total, worker) => total + worker.running, 0);
  const dead = sum("dead");
  return h("div", { class: "tiles" },
    tile("Throughput", [rate(numbers.rate), h("small", {}, " /s")], numbers.failed ? `${rate(numbers.failed * 60)} failed a minute` : "nothing fails", numbers.failed ? "warn" : ""),
    tile("Run time p95", span(numbers.p95), numbers.p50 === null ? "no task in the last minute" : `p50 ${span(numbers.p50)} · p99 ${span(numbers.p99)}`),
    tile("Waiting", count(sum("waiting")), numbers.latency === null ? "" : `p95 waited ${span(numbers.latency)}`),
    tile("In flight", count(sum("in_flight")), `${count(running)} running`),
    tile("Delayed", count(sum("delayed")), "retries included"),
    tile("Dead letters", count(dead), sum("dropped") ? `${count(sum("dropped"))} dropped` : "", dead ? "bad" : ""),
    tile("Workers", count(alive), [stale ? `${stale} stale · ` : "", `${count(redelivered)} redelivered`], stale ? "bad" : ""));
}

function attention({ status }) {
  const now = status.at, found = [];
  const add = (look, ...text) => found.push(h("li", { class: look }, text));
  for (const queue of status.queues) {
    if (queue.problem) add("bad", queueLink(queue.name), `: ${queue.problem}`);
    if (queue.paused) add("warn", queueLink(queue.name), ` is paused; ${count(queue.waiting)} tasks wait`);
    else if (queue.waiting && !queue.workers) add("bad", queueLink(queue.name), `: ${count(queue.waiting)} tasks wait, and no worker that shows itself takes them`);
    if (queue.dead) add("bad", queueLink(queue.name), `: ${count(queue.dead)} dead letters`);
  }
  for (const worker of status.workers) {
    if (!worker.alive) add("bad", `The worker ${worker.name} on `, queueLink(worker.queue), ` is stale; it holds ${count(worker.in_flight)} tasks`);
    else if (worker.seen > 5) add("warn", `The worker ${worker.name} on `, queueLink(worker.queue), ` was last heard of ${span(worker.seen)} ago: its event loop is blocked`);
  }
  for (const supervisor of status.supervisors) {
    if (!supervisor.alive) add("bad", `The supervisor ${supervisor.name} (${supervisor.host}, ${supervisor.pid}) was last heard of ${span(supervisor.seen)} ago`);
    else for (const part of supervisor.parts) if (["failed", "restarting"].includes(part.state)) add("bad", h("a", { href: "#/parts" }, `${supervisor.name}/${part.name}`), ` ${part.state === "failed" ? "has failed" : "is restarting"}${part.error ? `: ${part.error}` : ""}`);
  }
  for (const job of status.jobs) {
    const name = h("a", { href: "#/cron" }, `${job.app}/${job.name}`);
    if (job.problem) add("bad", name, `: ${job.problem}`);
    else if (job.outcome && !job.outcome.startsWith("success")) add("bad", name, ` ended with ${job.outcome} ${when(job.finished, now)}`);
    else if (job.next && job.next < now - 60) add("warn", name, " is overdue: no process schedules it");
  }
  if (!found.length) return section("Attention", h("p", { class: "fine" }, "Nothing needs attention."));
  return section("Attention", h("ul", { class: "attention" }, found.slice(0, 12)), found.length > 12 ? h("p", { class: "muted" }, `and ${found.length - 12} more`) : null);
}

function queueState(queue) {
  if (queue.problem) return badge("problem", "bad");
  if (queue.paused) return badge("paused", "warn");
  if (queue.waiting && !queue.workers) return badge("no worker", "bad");
  return queue.workers ? badge("working", "good") : badge("idle");
}

function queueTable({ status, numbers }, queues, empty) {
  const times = (queue, index) => span((numbers.times[queue.name] || [])[index]);
  return table([
    ["queue", "w", (queue) => queueLink(queue.name)], ["state", "", queueState],
    ["waiting", "n", (queue) => count(queue.waiting)], ["in flight", "n", (queue) => count(queue.in_flight)], ["delayed", "n", (queue) => count(queue.delayed)],
    ["dead", "n", (queue) => (queue.dead ? h("span", { class: "bad" }, count(queue.dead)) : "0")],
    ["tasks/s", "n", (queue) => rate(queue.rate)], ["run p95", "n", (queue) => times(queue, 1)], ["wait p95", "n", (queue) => times(queue, 3)], ["workers", "n", (queue) => count(queue.workers)],
  ], queues, (queue) => queue.name, empty);
}

function runningTable(status, only, most) {
  const tasks = status.workers.filter((worker) => !only || worker.queue === only).flatMap((worker) => worker.tasks.map((task, index) => ({ ...task, worker, index })));
  tasks.sort((one, two) => two.seconds - one.seconds);
  return table([
    ["task", "w mono", (task) => task.id ?? "?"],
    ...(tasks.some((task) => task.function) ? [["function", "mono", (task) => task.function ?? ""]] : []),
    ["runs for", "n", (task) => span(task.seconds)],
    ...(tasks.some((task) => task.progress) ? [["progress", "w", (task) => task.progress ?? ""]] : []),
    ["queue", "", (task) => queueLink(task.worker.queue)], ["worker", "mono", (task) => task.worker.name],
  ], tasks.slice(0, most), (task) => `${task.worker.name} ${task.id} ${task.index}`, "No task is running at this moment.");
}

function overview(state) {
  const { now } = state;
  return [
    tiles(now),
    h("div", { class: "charts" }, charts.names.map((name) => h("figure", { "data-node": name }, h("figcaption", {}, charts.about(name).title, h("span", { class: "muted" }, ` ${charts.about(name).unit}`)), h("div", { id: `chart-${name}`, class: "chart", "data-own": true })))),
    attention(now),
    section("Queues and topics", queueTable(now, now.status.queues, "No queue is known yet: start a worker, or publish to a topic.")),
    section("Longest running", runningTable(now.status, null, 10)),
  ];
}

// Queues

function queues(state) {
  const { now } = state, topics = now.status.queues.filter((queue) => queue.name.startsWith("mq:"));
  const lists = now.status.queues.filter((queue) => !queue.name.startsWith("mq:"));
  return [section("Queues", queueTable(now, lists, "No pool has worked on a queue yet.")), section("Topics", queueTable(now, topics, "No topic is known yet."))];
}

function payload(entry, queue) {
  const shown = entry.whole ?? entry.payload, more = entry.size > entry.payload.length && entry.whole === undefined && entry.key;
  return h("div", {}, h("pre", { class: "payload", tabindex: 0 }, pretty(shown)), h("p", { class: "muted small" }, size(entry.size), more ? [" · ", button("whole", "Show all of it", { key: entry.key, queue }, "link")] : null));
}

function pretty(text) {
  try {
    return /[[{]/.test(text[0]) && !/\d{16}/.test(text) ? JSON.stringify(JSON.parse(text), null, 2) : text;
  } catch {
    return text;
  }
}

function loaded(list, make) {
  if (list?.error) return h("p", { class: "bad" }, list.error);
  return list?.data ? make(list.data) : h("p", { class: "muted" }, "Loading …");
}

const line = (text) => h("span", { class: "line mono" }, text.slice(0, 160));

function queue(state, name) {
  const { now, lists } = state, found = now.status.queues.find((each) => each.name === name);
  if (!found) return [h("p", {}, `The queue ${name} is not known (any more).`)];
  const times = now.numbers.times[name] || [];
  return [
    h("div", { class: "title" }, h("h1", { class: "mono" }, name), queueState(found), h("span", { class: "grow" }),
      found.paused ? button("resume", "Resume", { queue: name }) : button("pause", "Pause", { queue: name }, "quiet"),
      button("purge", "Delete waiting tasks", { queue: name, count: found.waiting }, "quiet danger-text")),
    h("div", { class: "tiles" },
      tile("Throughput", [rate(found.rate), h("small", {}, " /s")]), tile("Run time p95", span(times[1]), `p50 ${span(times[0])} · p99 ${span(times[2])}`), tile("Waiting", count(found.waiting), `p95 waited ${span(times[3])}`),
      tile("In flight", count(found.in_flight)), tile("Delayed", count(found.delayed)), tile("Dead letters", count(found.dead), found.dropped ? `${count(found.dropped)} dropped` : "", found.dead ? "bad" : ""), tile("Workers", count(found.workers))),
    found.problem ? h("p", { class: "bad" }, found.problem) : null,
    section("Running", runningTable(now.status, name, 20)),
    section("Waiting, next first", loaded(lists.waiting, (data) => [entries(data.tasks, name, (task) => [line(task.payload)], () => null), shownOf(data.tasks.length, data.total, "waiting tasks")])),
    section("Delayed, by the time they are due", loaded(lists.delayed, (data) => [
      entries(data.tasks, name, (task) => [h("time", { class: "n" }, task.due ? when(task.due, now.status.at) : "at a limit"), h("span", { class: "mono id" }, task.id ?? "–"), line(task.payload)],
        (task) => [button("run", "Run now", { queue: name, key: task.key }, "quiet"), button("cancel", "Cancel", { queue: name, key: task.key }, "quiet danger-text")]),
      shownOf(data.tasks.length, data.total, "delayed tasks")])),
    section("Dead letters", letters(state, name)),
  ];
}

// Rows that open: summary, then the payload and buttons.
function entries(rows, queue, summary, buttons, details) {
  return rows.length ? h("ul", { class: "entries" }, rows.map((row, index) => h("li", { "data-node": row.key ?? `row ${index}` },
    h("details", {}, h("summary", {}, summary(row)), h("div", { class: "opened" }, details?.(row), payload(row, queue))), h("div", { class: "row-buttons" }, buttons(row))))) : null;
}

const shownOf = (shown, total, what) => h("p", { class: "muted small" }, total ? `${count(shown)} of ${count(total)} ${what}` : `No ${what}.`);

// Failures

const plain = (reason) => reason.replace(/^Processing error: /, "");

function letters(state, name) {
  const { lists, search, group, now } = state;
  return loaded(lists.dead, (data) => {
    const filter = { queue: name, search, group, count: data.matching };
    return [
      h("div", { class: "filters" },
        h("input", { type: "search", id: "search", placeholder: "Search id, reason, payload", "aria-label": "Search dead letters", value: search }),
        data.matching ? [button("requeue", `Requeue ${search || group ? `these ${count(data.matching)}` : `all ${count(data.matching)}`}`, filter), button("bury", "Delete them", filter, "quiet danger-text")] : null),
      data.groups.length > 1 || group ? h("div", { class: "groups", role: "group", "aria-label": "Reasons" }, [["", data.read], ...data.groups].map(([reason, number]) =>
        h("button", { type: "button", class: "chip", "data-action": "group", "data-group": reason, "aria-pressed": String(reason === group) }, h("span", {}, plain(reason) || "every reason"), h("b", {}, count(number))))) : null,
      entries(data.letters, name,
        (letter) => [h("time", { class: "n" }, when(letter.at, now.status.at)), h("span", { class: "mono id" }, letter.id ?? "–"), h("span", { class: "line" }, plain(letter.reason))],
        (letter) => [letter.cut ? null : button("requeue", "Requeue", { queue: name, key: letter.key }, "quiet"), button("bury", "Delete", { queue: name, key: letter.key }, "quiet danger-text")],
        (letter) => [h("p", { class: "bad" }, letter.reason), h("p", { class: "muted small" }, `${clock(letter.at)} · ${letter.attempts} attempt${letter.attempts === 1 ? "" : "s"} · ${letter.worker}`),
          letter.cut ? h("p", { class: "bad" }, "Only the beginning of the task is kept: it cannot be requeued.") : null, letter.trace ? h("pre", { class: "trace", tabindex: 0 }, letter.trace) : null]),
      h("p", { class: "muted small" }, data.total === 0 ? "No dead letters." : `${count(data.letters.length)} shown of ${count(data.matching)} that match, of ${count(data.read)} read${data.total > data.read ? `; the other ${count(data.total - data.read)} are older` : ""}`),
    ];
  });
}

function failures(state, name) {
  const { now } = state, groups = new Map();
  for (const worker of now.status.workers) {
    for (const { reason, count: number, at } of worker.failures) {
      const key = `${worker.queue}\n${reason}`, group = groups.get(key) ?? { queue: worker.queue, reason, number: 0, at: 0 };
      groups.set(key, { ...group, number: group.number + number, at: Math.max(group.at, at) });
    }
  }
  const reasons = [...groups.values()].sort((one, two) => two.number - one.number);
  const queues = now.status.queues.filter((queue) => queue.dead);
  return [
    section("Failures by reason", h("p", { class: "muted small" }, "As the workers that live now report them, since each was started: retries, error results and dead letters."),
      table([["reason", "w", (group) => plain(group.reason)], ["queue", "", (group) => queueLink(group.queue)], ["count", "n", (group) => count(group.number)], ["last", "n", (group) => when(group.at, now.status.at)]],
        reasons.slice(0, 30), (group) => `${group.queue} ${group.reason}`, "No worker that lives now has seen a failure.")),
    section("Dead letters", queues.length ? h("div", { class: "groups", role: "group", "aria-label": "Queues" }, queues.map((queue) =>
      h("a", { class: "chip", href: `#/failures/${encodeURIComponent(queue.name)}`, "aria-current": queue.name === name ? "true" : null }, h("span", {}, queue.name), h("b", {}, count(queue.dead))))) : null,
      name ? letters(state, name) : h("p", { class: "fine" }, "No queue has dead letters.")),
  ];
}

// Workers, cron jobs, parts

function workers({ now }) {
  const { status } = now, left = now.workers - status.workers.length;
  return [section(`Workers`, table([
    ["worker", "w mono", (worker) => worker.name], ["state", "", (worker) => (worker.alive ? (worker.seen > 5 ? badge("blocked", "warn") : badge("alive", "good")) : badge("stale", "bad"))],
    ["queue", "", (worker) => queueLink(worker.queue)], ["function", "", (worker) => worker.processor ?? "–"],
    ["running", "n", (worker) => `${worker.running}/${worker.concurrency ?? "?"}`], ["in flight", "n", (worker) => count(worker.in_flight)], ["tasks/s", "n", (worker) => rate(worker.rate)],
    ["processed", "n", (worker) => count(worker.counters.processed)], ["failed", "n", (worker) => count(worker.counters.failed)], ["retried", "n", (worker) => count(worker.counters.retried)], ["redelivered", "n", (worker) => count(worker.counters.redelivered)],
    ["seen", "n", (worker) => span(worker.seen)], ["host", "", (worker) => `${worker.host ?? "–"} ${worker.pid ?? ""}`],
  ], status.workers, (worker) => `${worker.queue} ${worker.name}`, "No worker shows itself. At-most-once workers never do."), left > 0 ? h("p", { class: "muted" }, `and ${left} more`) : null),
  section("Running tasks", runningTable(status, null, 100))];
}

function cron({ now }) {
  const { status } = now;
  return [section("Cron jobs", table([
    ["job", "", (job) => `${job.app}/${job.name}`], ["schedule", "mono", (job) => job.schedule], ["zone", "", (job) => job.timezone],
    ["last", "n", (job) => when(job.finished, status.at)], ["outcome", "", (job) => [job.outcome ? badge(job.outcome, job.outcome.startsWith("success") ? "good" : "bad") : "–", job.running ? badge("running", "warn") : null]],
    ["took", "n", (job) => span(job.duration)], ["next", "n", (job) => when(job.next, status.at)],
    ["runs", "", (job) => Object.entries(job.counts).map(([outcome, number]) => `${count(number)} ${outcome}`).join(", ")], ["error", "w", (job) => job.problem ?? job.error ?? "–"],
    ["", "", (job) => button("fire", "Run now", { app: job.app, name: job.name }, "quiet")],
  ], status.jobs, (job) => `${job.app}/${job.name}`, "No cron job has been scheduled yet."))];
}

function parts({ now }) {
  const look = { running: "good", ended: "", failed: "bad", restarting: "bad", "Redis is away": "bad" };
  const rows = now.status.supervisors.flatMap((supervisor) => supervisor.parts.map((part) => ({ ...part, supervisor })));
  return [section("Parts of supervisors", table([
    ["part", "w", (row) => `${row.supervisor.name}/${row.name}`], ["kind", "", (row) => row.kind], ["state", "", (row) => (row.supervisor.alive ? badge(row.state, look[row.state] ?? "warn") : badge("stale", "bad"))],
    ["processes", "n", (row) => (row.processes ? count(row.processes) : "–")], ["restarts", "n", (row) => count(row.restarts)], ["Kafka lag", "n", (row) => (row.lag === null || row.lag === undefined ? "–" : count(row.lag))], ["error", "w", (row) => row.error ?? "–"], ["host", "", (row) => `${row.supervisor.host} ${row.supervisor.pid}`],
  ], rows, (row) => `${row.supervisor.id} ${row.name}`, "No supervisor runs: `redis-worker serve` is one, and so is `run -w 2`."))];
}

export function view(state) {
  const { name, item } = state.route;
  const made = { "": overview, queues, workers, failures, cron, parts, queue }[name] ?? overview;
  return made(state, item);
}
