// The listening test's page: plays window.AUDIOXAI_LISTENING blind, in a seeded order, and saves answers as CSV.
"use strict";
(() => {
  const data = window.AUDIOXAI_LISTENING;
  const STORE = `audioxai-listening-${data.test}`;
  const $ = (selector, root = document) => root.querySelector(selector);
  let session = null; // { participant, seed, n, order, answers, saved }
  let audio = null;
  let plays = 0;
  let shown = 0; // ms when the trial appeared

  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) if (value !== undefined) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  // ---- choice and order: as tests/helpers/listening_order.py in Python ----
  function draws(seed) {
    let state = Math.imul(seed, 2654435761) >>> 0 || 1;
    return () => {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      state >>>= 0;
      return state / 4294967296;
    };
  }
  function shuffled(items, draw) {
    for (let last = items.length - 1; last > 0; last--) {
      const other = Math.floor(draw() * (last + 1));
      [items[last], items[other]] = [items[other], items[last]];
    }
    return items;
  }
  function trialOrder(trials, n, seed) {
    const draw = draws(seed);
    const queues = new Map();
    for (const place of shuffled([...trials.keys()], draw)) {
      const method = trials[place].method;
      queues.set(method, [...(queues.get(method) || []), place]);
    }
    const used = new Map();
    const count = (place) => used.get(trials[place].clip) || 0;
    const chosen = [];
    while (chosen.length < Math.min(n, trials.length))
      for (const queue of queues.values())
        if (queue.length && chosen.length < n) {
          const place = queue.reduce((best, other) => (count(other) < count(best) ? other : best));
          queue.splice(queue.indexOf(place), 1);
          used.set(trials[place].clip, count(place) + 1);
          chosen.push(place);
        }
    return shuffled(chosen, draw);
  }
  data.order = (n, seed) => trialOrder(data.trials, n, seed);

  // ---- what survives a closed window ----
  function remember() {
    try {
      if (session) localStorage.setItem(STORE, JSON.stringify(session));
      else localStorage.removeItem(STORE);
    } catch (error) {
      $("#status").textContent = "This browser keeps nothing between visits: do not close the window before saving.";
    }
  }
  function remembered() {
    try {
      const found = JSON.parse(localStorage.getItem(STORE));
      return found && !(found.saved && found.answers.length === found.order.length) ? found : null;
    } catch (error) {
      return null; // nothing kept, or not by this page
    }
  }

  // ---- the three parts of the page ----
  function show(part, focus) {
    for (const name of ["start", "trial", "end"]) $(`#${name}`).hidden = name !== part;
    if (focus) $(focus).focus();
  }
  function showStart() {
    const left = remembered();
    $("#resume").hidden = !left;
    if (left) $("#resume").textContent = `Continue as ${left.participant} (${left.answers.length} of ${left.order.length} done)`;
    $("#participant").value = "";
    $("#seed").value = String(1 + Math.floor(Math.random() * 999999999));
    show("start");
  }
  function begin(event) {
    event.preventDefault();
    const participant = $("#participant").value.trim();
    const seed = $("#seed").value.trim();
    const bad = !/^[A-Za-z0-9_-]+$/.test(participant) ? ["#participant", "Please give a code of letters, digits, - and _."]
      : !/^[0-9]{1,9}$/.test(seed) ? ["#seed", "The seed must be a whole number of up to nine digits."] : null;
    $("#start-fault").textContent = bad ? bad[1] : "";
    for (const field of ["#participant", "#seed"]) $(field).setAttribute("aria-invalid", String(Boolean(bad) && bad[0] === field));
    if (bad) return $(bad[0]).focus();
    const n = Number($("#length").value);
    session = { participant, seed: Number(seed), n, order: data.order(n, Number(seed)), answers: [], saved: true };
    remember();
    showTrial();
  }
  function option(group, value, text, key) {
    const input = make("input", { type: "radio", name: group, value, "aria-keyshortcuts": key });
    return make("label", {}, input, make("span", {}, text));
  }
  function showTrial() {
    const place = session.answers.length;
    if (place >= session.order.length) return finish();
    const trial = data.trials[session.order[place]];
    stopSound();
    audio = make("audio", { src: `assets/${trial.file}`, preload: "auto" });
    audio.volume = trial.volume;
    audio.addEventListener("play", () => { plays += 1; sounding(true); });
    for (const name of ["pause", "ended"]) audio.addEventListener(name, () => sounding(false));
    audio.addEventListener("timeupdate", clock);
    audio.addEventListener("error", () => fault("This sound cannot be played; stop here and save."));
    plays = 0;
    shown = performance.now();
    $("#trial-title").textContent = `Sound ${place + 1} of ${session.order.length}`;
    $("#done").value = place / session.order.length;
    $("#trial").reset();
    fault("");
    sounding(false);
    clock();
    show("trial", "#play");
  }
  function stopSound() {
    if (audio) audio.pause();
  }
  function sounding(on) {
    $("#play").setAttribute("aria-pressed", String(on));
    $("#play").textContent = on ? "Pause" : plays ? "Play again" : "Play";
    clock();
  }
  function clock() {
    const { seconds } = data.trials[session.order[session.answers.length]] || { seconds: 0 };
    $("#clock").textContent = `${audio.currentTime.toFixed(1)} of ${seconds.toFixed(1)} s`;
  }
  function toggle() {
    if (!audio.paused) return audio.pause();
    return audio.play().catch((error) => fault(`This sound cannot be played (${error.message}).`));
  }
  function fault(text) {
    $("#trial-fault").textContent = text;
  }
  function answer(event) {
    event.preventDefault();
    const [heard, clear] = ["heard", "clear"].map((group) => $(`input[name=${group}]:checked`));
    const lacking = !plays ? ["#play", "Please play the sound first."]
      : !heard ? ["#heard input", "Please say what you hear."] : !clear ? ["#clear input", "Please say how clear it is."] : null;
    if (lacking) {
      fault(lacking[1]);
      return $(lacking[0]).focus();
    }
    session.answers.push({ heard: heard.value, clear: clear.value, plays, seconds: ((performance.now() - shown) / 1000).toFixed(1),
      answered: new Date().toISOString() });
    session.saved = false;
    remember();
    showTrial();
  }
  function finish() {
    stopSound();
    const n = session.answers.length;
    $("#told").textContent = n ? `${n} of ${session.order.length} sounds are answered.` : "No sound is answered yet.";
    $("#save").disabled = !n;
    show("end", "#end-title");
  }

  // ---- saving ----
  const quoted = (value) => (/[",\r\n]/.test(value) ? `"${value.replace(/"/g, '""')}"` : value);
  function csv() {
    const rows = session.answers.map((given, place) => {
      const known = { test: data.test, participant: session.participant, seed: session.seed, n_trials: session.n, trial: place + 1,
        n_choices: data.choices.length + 1 };
      const row = { ...data.trials[session.order[place]], ...known, ...given };
      return data.columns.map((name) => quoted(String(row[name]))).join(",");
    });
    return [data.columns.join(","), ...rows, ""].join("\n");
  }
  function save() {
    const address = URL.createObjectURL(new Blob([csv()], { type: "text/csv;charset=utf-8" }));
    const link = make("a", { href: address, download: `listening-${session.participant}-${session.seed}.csv` });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
    session.saved = true;
    remember();
    $("#status").textContent = "Saved by the browser, in its folder of downloads.";
  }

  // ---- the page ----
  function keys(event) {
    if ($("#trial").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    if (key === "p") toggle();
    else if (key in data.clarity) $(`#clear input[value="${key}"]`).checked = true;
    else if (key === "enter" && event.target.type === "radio") $("#trial").requestSubmit();
    else return;
    event.preventDefault();
  }
  const words = (text) => text.replace(/_/g, " ");
  $("#heard").append(...data.choices.map((name) => option("heard", name, words(name))), option("heard", data.else, data.else));
  $("#clear").append(...Object.entries(data.clarity).map(([step, text]) => option("clear", step, `${step} ${text}`, step)));
  $("#length").append(...data.lengths.map((n) => make("option", { value: n }, n === data.trials.length ? `all ${n}` : `${n}`)));
  $("#length").value = data.lengths.includes(24) ? "24" : String(data.lengths[0]);
  $("#start").addEventListener("submit", begin);
  $("#trial").addEventListener("submit", answer);
  $("#play").addEventListener("click", toggle);
  $("#stop").addEventListener("click", finish);
  $("#save").addEventListener("click", save);
  $("#again").addEventListener("click", () => {
    if (!session.saved) save();
    session = null;
    showStart();
  });
  $("#resume").addEventListener("click", () => { session = remembered(); showTrial(); });
  document.addEventListener("keydown", keys);
  window.addEventListener("beforeunload", (event) => { if (session && !session.saved) event.preventDefault(); });
  $("#test").hidden = false;
  showStart();
})();
