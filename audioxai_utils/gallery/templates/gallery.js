// The listening gallery's page: filters, comparisons and players over window.AUDIOXAI_GALLERY.
"use strict";
(() => {
  const data = window.AUDIOXAI_GALLERY;
  const PER_PAGE = 12;
  const LAYERS = ["spectrogram", "attribution", "mask", "kept", "removed"];
  const VIEWS = { cards: "Cards", methods: "All methods on one clip", masks: "All masks of one method" };
  const FILTERS = {
    category: "Class", clip: "Clip", spectrogram: "Spectrogram", scenario: "Noise", method: "Method",
    mask: "Mask", protocol: "Protocol", correct: "Prediction", tag: "Highlight",
  };
  const FIXED = { cards: [], methods: ["clip", "spectrogram", "scenario", "protocol"],
    masks: ["clip", "spectrogram", "scenario", "protocol", "method"] };
  const UNUSED = { cards: [], methods: ["method", "tag", "correct", "category"],
    masks: ["mask", "tag", "correct", "category"] };
  const DEFAULTS = { view: "cards", layer: "attribution", level: "matched", sort: "", page: "1", card: "" };
  const $ = (selector, root = document) => root.querySelector(selector);
  let state = {};
  let playing = null; // { card, part, audio } of the sound that plays or was last played

  // ---- small helpers ----
  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === undefined || value === null || value === false) continue;
      if (name === "class") node.className = value;
      else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  }
  const words = (text) => String(text).replace(/_/g, " ");
  const label = (key, value) => (data.labels[key] || {})[value] || (key === "category" ? words(value) : value);
  const RIGHT = { true: "right", false: "wrong", null: "not known" };
  const shown = (key, value) => key === "correct" ? RIGHT[value] : label(key, value);
  const number = (value) => value === null || value === undefined ? "n/a"
    : Math.abs(value) >= 100 ? value.toFixed(0) : Math.abs(value) >= 10 ? value.toFixed(1) : value.toFixed(3);
  const decibels = (value) => `${value < 0 ? "\u2212" : "+"}${Math.abs(value).toFixed(1)} dB`;
  const percent = (share) => share === null ? "n/a" : `${(100 * share).toFixed(share > 0 && share < 0.01 ? 2 : 1)} %`;
  const values = (entry, key) => key === "tag" ? entry.tags : [String(entry[key])];
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  // ---- state and address ----
  function readState() {
    const found = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    state = { ...DEFAULTS, ...found };
    if (!VIEWS[state.view]) state.view = "cards";
    if (!LAYERS.includes(state.layer)) state.layer = DEFAULTS.layer;
    if (state.level !== "true") state.level = "matched";
  }
  function address(changes) {
    const next = { ...state, ...changes };
    const kept = Object.entries(next).filter(([key, value]) => value && value !== DEFAULTS[key]);
    return "#" + new URLSearchParams(kept).toString();
  }
  function go(changes) {
    const target = address(changes);
    if (target !== location.hash && !(target === "#" && !location.hash)) location.hash = target;
  }

  // ---- choice ----
  const passes = (entry, keys) => keys.every((key) => !state[key] || values(entry, key).includes(state[key]));
  function options(key) {
    const others = Object.keys(FILTERS).filter((other) => other !== key && !UNUSED[state.view].includes(other)
      && (!FIXED[state.view].length || FIXED[state.view].indexOf(other) < FIXED[state.view].indexOf(key)
        || !FIXED[state.view].includes(key)));
    const found = new Set(data.entries.filter((entry) => passes(entry, others)).flatMap((entry) => values(entry, key)));
    const order = data.order[key] || [];
    const rank = (value) => order.includes(value) ? order.indexOf(value) : order.length;
    return [...found].sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1));
  }
  function fixChoice() { // comparisons need one clip, one condition, and for masks one method
    for (const key of FIXED[state.view]) {
      const possible = options(key);
      if (!possible.includes(state[key])) state[key] = bestStart(key, possible);
    }
  }
  function bestStart(key, possible) { // prefer what has the most to compare
    const fixed = FIXED[state.view];
    const earlier = fixed.slice(0, fixed.indexOf(key));
    const count = (value) => new Set(data.entries.filter((entry) => passes(entry, earlier)
      && values(entry, key).includes(value)).map((entry) => state.view === "masks"
      ? `${entry.spectrogram} ${entry.scenario} ${entry.method} ${entry.mask}` : `${entry.spectrogram} ${entry.method}`)).size;
    return possible.reduce((best, value) => best === undefined || count(value) > count(best) ? value : best, undefined);
  }
  function chosen() {
    if (state.card) return data.entries.filter((entry) => entry.id === state.card);
    const keys = Object.keys(FILTERS).filter((key) => !UNUSED[state.view].includes(key));
    let entries = data.entries.filter((entry) => passes(entry, keys));
    if (state.view === "methods" && !state.mask) entries = onePerMethod(entries);
    const rank = (key, entry) => (data.order[key] || []).indexOf(entry[key]);
    if (state.view === "methods") entries.sort((a, b) => rank("method", a) - rank("method", b));
    if (state.view === "masks") entries.sort((a, b) => rank("mask", a) - rank("mask", b));
    return state.sort ? sorted(entries, state.sort) : entries;
  }
  function onePerMethod(entries) {
    const best = new Map();
    for (const entry of entries)
      if (!best.has(entry.method) || entry.tags.includes(data.bestMask)) best.set(entry.method, entry);
    return [...best.values()];
  }
  function sorted(entries, metric) {
    const value = (entry) => metric === "area" ? entry.area : entry.scores[metric];
    const sign = data.lower.includes(metric) || metric === "area" ? 1 : -1;
    const missing = (entry) => value(entry) === null || value(entry) === undefined;
    return [...entries].sort((a, b) => missing(a) - missing(b) || sign * (value(a) - value(b)) || 0);
  }

  // ---- playing ----
  function volume(card, sound) {
    return clamp(state.level === "true" ? sound.true : sound.matched, 0, 1);
  }
  function toggle(card, part) {
    const sound = card.sounds[part];
    if (!sound) return;
    if (playing && playing.audio === sound.audio && !sound.audio.paused) return sound.audio.pause();
    const at = card.position >= sound.record.seconds - 0.05 ? 0 : card.position;
    if (playing && playing.audio !== sound.audio) playing.audio.pause();
    playing = { card, part, audio: sound.audio };
    card.last = part;
    sound.audio.volume = volume(card, sound.record);
    if (Math.abs(sound.audio.currentTime - at) > 0.03) sound.audio.currentTime = at;
    sound.audio.play().catch((error) => { card.status.textContent = `cannot play: ${error.message}`; });
  }
  function seek(card, seconds, alsoPlay) {
    card.position = clamp(seconds, 0, card.seconds);
    const part = card.last || Object.keys(card.sounds)[0];
    for (const sound of Object.values(card.sounds))
      if (playing && playing.audio === sound.audio) sound.audio.currentTime = card.position;
    showPosition(card);
    if (alsoPlay && part && (!playing || playing.card !== card || playing.audio.paused)) toggle(card, part);
  }
  function showPosition(card) {
    const { start, end } = card.axes;
    card.head.style.left = `${100 * (card.position - start) / (end - start)}%`;
    card.picture.setAttribute("aria-valuenow", card.position.toFixed(2));
    card.picture.setAttribute("aria-valuetext", `${card.position.toFixed(1)} seconds`);
    card.time.textContent = `${card.position.toFixed(1)} / ${card.seconds.toFixed(1)} s`;
  }
  function follow() {
    if (playing && !playing.audio.paused) {
      playing.card.position = playing.audio.currentTime;
      showPosition(playing.card);
      requestAnimationFrame(follow);
    }
  }
  function player(card, record) {
    const audio = make("audio", { preload: "none", src: `assets/${record.file}`, "data-seconds": record.seconds });
    const button = card.buttons[record.part];
    audio.addEventListener("play", () => { button.setAttribute("aria-pressed", "true"); follow(); });
    audio.addEventListener("pause", () => button.setAttribute("aria-pressed", "false"));
    audio.addEventListener("ended", () => { card.position = 0; showPosition(card); });
    audio.addEventListener("error", () => { card.status.textContent = `${record.file} cannot be played`; });
    card.sounds[record.part] = { audio, record };
    return audio;
  }

  // ---- a card ----
  function plot(card, entry) {
    const axes = card.axes;
    const images = LAYERS.filter((layer) => entry.layers[layer]).map((layer) => make("img", { src: `assets/${entry.layers[layer]}`, class: `layer layer-${layer}`,
      alt: "", loading: "lazy", decoding: "async", draggable: "false" }));
    card.head = make("div", { class: "playhead" });
    card.picture = make("div", { class: `picture${axes.upscaled ? " crisp" : ""}${entry.layers.kept ? "" : " binary"}`, tabindex: "0", role: "slider",
      "aria-label": `Position in ${words(entry.category)}, ${label("method", entry.method)}, ${entry.mask}`,
      "aria-valuemin": "0", "aria-valuemax": card.seconds, "aria-valuenow": "0" }, ...images, card.head);
    card.picture.addEventListener("click", (event) => {
      const box = card.picture.getBoundingClientRect();
      seek(card, axes.start + (axes.end - axes.start) * (event.clientX - box.left) / box.width, true);
    });
    const frequencies = make("div", { class: "axis" });
    frequencies.innerHTML = axes.f;
    const times = make("div", { class: "axis" });
    times.innerHTML = axes.t;
    return make("div", { class: "plot", title: axes.words }, frequencies.firstChild, card.picture, times.firstChild,
      make("div", { class: "units", "aria-hidden": "true" }, "Hz\u2191 s\u2192"));
  }
  function soundRow(card, record, entry) {
    const silent = !record.file;
    const name = record.part[0].toUpperCase() + record.part.slice(1);
    const button = make("button", { type: "button", class: "play", "aria-pressed": "false", disabled: silent,
      "data-part": record.part, onclick: () => toggle(card, record.part) }, name);
    card.buttons[record.part] = button;
    const first = record.class === entry.explained; // the colour is of the explained class: heard or not
    const beside = !first && record.heard; // under a threshold it may be heard beside a more probable one
    const belief = make("span", { class: "belief" },
      make("b", { class: beside || record.heard === null ? null : record.heard ? "same" : "other" }, words(record.class)),
      ` ${percent(record.p)}`);
    if (beside) belief.append(", ", make("b", { class: "same" }, words(entry.explained)));
    else if (!first && record.explained !== undefined) belief.append(`, ${words(entry.explained)}`);
    if (!first && record.explained !== undefined) belief.append(` ${percent(record.explained)}`);
    const gain = make("span", { class: "gain" }, silent ? "silent" : "");
    if (!silent) gain.dataset.gain = record.gain;
    return make("div", { class: "sound" }, button, belief, gain, silent ? null : player(card, record));
  }
  function badges(entry) {
    const kind = (tag) => data.verdicts[tag] || "tag";
    const list = [[entry.words], [entry.protocol],
      [entry.correct === null ? "class not known" : `model ${RIGHT[entry.correct]}`,
        entry.correct === null ? "" : entry.correct ? "good" : "bad"], ...entry.tags.map((tag) => [tag, kind(tag)])];
    if (entry.degenerate) list.push(["constant mask", "bad"]);
    return make("p", { class: "badges" }, ...list.map(([text, kind]) => make("span", { class: `badge ${kind || ""}` }, text)));
  }
  function scores(entry) {
    const items = data.metrics.map((name) => [name, number(entry.scores[name]), data.lower.includes(name) ? "\u2193" : "\u2191"]);
    items.push(["area", percent(entry.area), ""]);
    return make("dl", { class: "scores" }, ...items.map(([name, value, arrow]) => make("div", {},
      make("dt", {}, name, arrow ? make("span", { "aria-hidden": "true" }, ` ${arrow}`) : null), make("dd", {}, value))));
  }
  function links(entry) {
    const base = { clip: entry.clip, spectrogram: entry.spectrogram, scenario: entry.scenario, protocol: entry.protocol,
      card: "", page: "1", category: "", correct: "", tag: "", mask: "", method: "" };
    const same = (keys) => data.entries.filter((other) => keys.every((key) => other[key] === entry[key]));
    const condition = ["clip", "spectrogram", "scenario", "protocol"];
    const list = [make("a", { href: address({ ...base, view: "cards", clip: "", spectrogram: "", scenario: "", protocol: "",
      card: entry.id, sort: "" }) }, "link to this card")];
    if (new Set(same(condition).map((other) => other.method)).size > 1)
      list.push(make("a", { href: address({ ...base, view: "methods" }) }, "all methods"));
    if (same([...condition, "method"]).length > 1)
      list.push(make("a", { href: address({ ...base, view: "masks", method: entry.method }) }, "all masks"));
    return make("p", { class: "links" }, ...list);
  }
  function makeCard(entry) {
    const card = { sounds: {}, buttons: {}, position: 0, last: null, axes: data.axes[entry.axes],
      seconds: Math.max(...entry.sounds.map((sound) => sound.seconds)) };
    card.time = make("span", { class: "time" });
    card.status = make("span", { class: "status", role: "status" });
    const title = make("h2", {}, make("i", { class: "dot", style: `background:${data.colours[entry.method] || "#777"}` }),
      `${state.view === "cards" ? `${words(entry.category)}: ` : ""}${label("method", entry.method)}, ${entry.mask}`);
    const node = make("article", { class: "card", "data-id": entry.id }, title,
      make("p", { class: "clip" }, state.view === "cards" ? entry.clip : `${words(entry.category)}, ${entry.clip}`), badges(entry), plot(card, entry));
    const rows = entry.sounds.map((record) => soundRow(card, record, entry));
    node.append(make("div", { class: "sounds" }, ...rows), make("p", { class: "clock" }, card.time, card.status),
      scores(entry), links(entry));
    node.addEventListener("keydown", (event) => keys(card, event));
    showPosition(card);
    return node;
  }
  function keys(card, event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    const part = { o: "original", k: "kept", r: "removed" }[key];
    const onPicture = event.target === card.picture;
    const moves = { arrowleft: card.position - 0.1, arrowright: card.position + 0.1, home: 0, end: card.seconds };
    if (part) toggle(card, part);
    else if (key >= "1" && key <= "5") go({ layer: LAYERS[Number(key) - 1] });
    else if (key === "l") go({ level: state.level === "true" ? "matched" : "true" });
    else if (onPicture && (key === " " || key === "enter")) toggle(card, card.last || Object.keys(card.sounds)[0]);
    else if (onPicture && key in moves) seek(card, moves[key], false);
    else return;
    event.preventDefault();
  }

  // ---- the page ----
  function select(key, title, choices, value, all) {
    const id = `filter-${key}`;
    const box = make("select", { id, "data-key": key, onchange: (event) =>
      go({ [key]: event.target.value, page: "1", card: "" }) });
    if (all) box.append(make("option", { value: "" }, all));
    for (const [choice, text] of choices) box.append(make("option", { value: choice, selected: choice === value }, text));
    box.value = value || (all ? "" : choices[0]?.[0] ?? "");
    return make("label", { for: id }, make("span", {}, title), box);
  }
  function showFilters() {
    const form = $("#filters");
    const focus = document.activeElement && document.activeElement.id;
    const view = select("view", "View", Object.entries(VIEWS), state.view, "");
    const rest = Object.entries(FILTERS).filter(([key]) => !UNUSED[state.view].includes(key)).map(([key, title]) => {
      const all = FIXED[state.view].includes(key) ? "" : state.view === "methods" && key === "mask" ? "best of each method" : "all";
      const choices = options(key).map((value) => [value, shown(key, value)]);
      if (state[key] && all && !choices.some(([value]) => value === state[key])) choices.push([state[key], shown(key, state[key])]);
      return choices.length > 1 || state[key] || key === "method" ? select(key, title, choices, state[key], all) : null;
    });
    const sorts = [...data.metrics, "area"].map((name) => [name, name === "area" ? "smallest kept area" : `best ${name}`]);
    const reset = make("a", { href: "#", class: "reset" }, "Show everything");
    form.replaceChildren(view, ...rest.filter(Boolean), select("sort", "Order", sorts, state.sort, data.order.first || "as listed"), reset);
    if (focus && focus.startsWith("filter-")) document.getElementById(focus)?.focus();
  }
  function segments(id, choices, current, change) {
    const old = document.activeElement?.dataset?.choice;
    const inside = $(id).contains(document.activeElement);
    $(id).replaceChildren(...choices.map(([value, text]) => make("button", { type: "button", "data-choice": value,
      "aria-pressed": String(value === current), onclick: () => change(value) }, text)));
    if (inside && old) $(`[data-choice="${old}"]`, $(id))?.focus();
  }
  function showTools() {
    segments("#layers", LAYERS.map((layer) => [layer, layer]), state.layer, (layer) => go({ layer }));
    segments("#levels", [["matched", "matched level"], ["true", "true level"]], state.level, (level) => go({ level }));
    const cards = $("#cards");
    cards.dataset.layer = state.layer;
    for (const gain of cards.querySelectorAll("[data-gain]"))
      gain.textContent = state.level === "true" ? "true level" : decibels(Number(gain.dataset.gain));
    if (playing) {
      const sound = playing.card.sounds[playing.part];
      sound.audio.volume = volume(playing.card, sound.record);
    }
  }
  let listed = "";
  function showCards() {
    const entries = chosen();
    const pages = state.view === "cards" ? Math.max(1, Math.ceil(entries.length / PER_PAGE)) : 1;
    const current = clamp(Number(state.page) || 1, 1, pages);
    const part = pages > 1 ? entries.slice((current - 1) * PER_PAGE, current * PER_PAGE) : entries;
    const signature = JSON.stringify([state.view, part.map((entry) => entry.id)]);
    if (signature !== listed) {
      if (playing) playing.audio.pause();
      playing = null;
      listed = signature;
      $("#cards").className = `cards view-${state.view}`;
      $("#cards").replaceChildren(...part.map(makeCard));
    }
    const from = (current - 1) * PER_PAGE + 1;
    $("#summary").textContent = !entries.length ? "No explanation fits these filters."
      : pages > 1 ? `${entries.length} explanations, ${from} to ${from + part.length - 1} shown.`
        : `${entries.length} explanation${entries.length === 1 ? "" : "s"}.`;
    const turn = (to, text) => to < 1 || to > pages ? null : make("a", { href: address({ page: String(to) }), class: "turn" }, text);
    $("#pages").replaceChildren(...(pages > 1 ? [turn(current - 1, "\u2190 earlier"), make("span", {}, `page ${current} of ${pages}`),
      turn(current + 1, "later \u2192")].filter(Boolean) : []));
  }
  function render() {
    readState();
    fixChoice();
    showFilters();
    showCards();
    showTools();
  }
  window.addEventListener("hashchange", render);
  $("#gallery").hidden = false;
  $("#choose").open = window.innerWidth > 544; // on a phone the cards come first
  render();
})();
