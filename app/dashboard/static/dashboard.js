// What the browser does by itself: the theme, and uploads that go on where they broke off (tus 1.0.0).
"use strict";

const HERE = new URL(document.currentScript.src).pathname.replace(/\/static\/.*/, "");

const tdmr = {
  PIECE: 8 * 1024 * 1024,
  UPLOADS: `${HERE}/v1/uploads`,
  TUS: { "Tus-Resumable": "1.0.0" },
  TRIES: 12,

  theme() {
    const kept = localStorage.getItem("tdmr-theme");
    if (kept) Quasar.Dark.set(kept === "dark");
  },

  switchTheme() {
    const dark = !document.body.classList.contains("body--dark");
    localStorage.setItem("tdmr-theme", dark ? "dark" : "light");
    Quasar.Dark.set(dark);
  },

  // Files dropped on or chosen in a `.drop` box, sent one after the other.
  last: Promise.resolve(),
  take(box, files) {
    for (const file of files) {
      const line = tdmr.line(box.querySelector(".uploads"), file);
      tdmr.last = tdmr.last.then(() => tdmr.upload(file, line)).catch((error) => line.fail(error.message));
    }
  },

  listen() {
    const box = (event) => event.target.closest?.(".drop");
    for (const name of ["dragenter", "dragover", "dragleave", "drop"])
      document.addEventListener(name, (event) => {
        event.preventDefault();  // a file dropped beside the box must not replace the page
        box(event)?.classList.toggle("over", name === "dragenter" || name === "dragover");
        if (name === "drop" && box(event)) tdmr.take(box(event), event.dataTransfer.files);
      });
    document.addEventListener("change", (event) => {
      if (!box(event) || event.target.type !== "file") return;
      tdmr.take(box(event), [...event.target.files]);
      event.target.value = "";
    });
  },

  line(list, file) {
    const item = document.createElement("li");
    const said = document.createElement("span");
    const bar = document.createElement("progress");
    bar.className = "meter";
    bar.max = 1;
    bar.value = 0;
    bar.setAttribute("aria-label", `Upload of ${file.name}`);
    said.setAttribute("role", "status");
    item.append(said, bar);
    list.append(item);
    const say = (text) => { said.textContent = `${file.name}: ${text}`; };
    say("waiting");
    return {
      say,
      show(sent) { bar.value = file.size ? sent / file.size : 1; say(`${Math.floor(100 * bar.value)} %`); },
      done() { bar.value = 1; say("uploaded; it is being checked"); },
      fail(why) { say(why); item.classList.add("refusal"); },
    };
  },

  async upload(file, line) {
    const kept = `tdmr-upload:${file.name}:${file.size}:${file.lastModified}`;
    let [place, offset] = await tdmr.begun(localStorage.getItem(kept));
    if (!place) {
      place = await tdmr.begin(file);
      localStorage.setItem(kept, place);
    }
    let failures = 0;
    while (offset < file.size || file.size === 0) {
      line.show(offset);
      try {
        offset = await tdmr.append(file, place, offset, line);
        failures = 0;
      } catch (error) {
        if (error.final || ++failures > tdmr.TRIES) {
          if (error.final) localStorage.removeItem(kept);
          throw error;
        }
        line.say(`broken off; trying again (${error.message})`);
        await new Promise((wake) => setTimeout(wake, Math.min(500 * 2 ** failures, 15000)));
        [place, offset] = await tdmr.begun(place);
        if (!place) throw new Error("The server doesn't know this upload any more. Send it again.");
      }
      if (file.size === 0) break;
    }
    localStorage.removeItem(kept);
    line.done();
  },

  // Where an upload goes on: its place and offset, or nothing when the server doesn't know it.
  async begun(place) {
    if (!place) return [null, 0];
    for (let tried = 0; ; tried++) {
      try {
        const answer = await fetch(place, { method: "HEAD", headers: tdmr.TUS });
        if (!answer.ok) return [null, 0];
        return [place, Number(answer.headers.get("Upload-Offset"))];
      } catch (error) {
        if (tried >= tdmr.TRIES) throw error;
        await new Promise((wake) => setTimeout(wake, Math.min(500 * 2 ** tried, 15000)));
      }
    }
  },

  async begin(file) {
    const name = btoa(String.fromCodePoint(...new TextEncoder().encode(file.name)));
    const answer = await fetch(tdmr.UPLOADS, {
      method: "POST",
      headers: { ...tdmr.TUS, "Upload-Length": String(file.size), "Upload-Metadata": `filename ${name}` },
    });
    if (!answer.ok) throw await tdmr.refusal(answer);
    return HERE + new URL(answer.headers.get("Location"), location.href).pathname;
  },

  append(file, place, offset, line) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open("PATCH", place);
      request.setRequestHeader("Tus-Resumable", "1.0.0");
      request.setRequestHeader("Upload-Offset", String(offset));
      request.setRequestHeader("Content-Type", "application/offset+octet-stream");
      request.upload.onprogress = (event) => line.show(offset + event.loaded);
      request.onerror = () => reject(new Error("no connection"));
      request.onload = () => {
        if (request.status < 300) resolve(Number(request.getResponseHeader("Upload-Offset")));
        else {
          const error = new Error(tdmr.detail(request.responseText) || `HTTP ${request.status}`);
          error.final = request.status >= 400 && ![408, 409, 423, 429].includes(request.status) && request.status < 500;
          reject(error);
        }
      };
      request.send(file.slice(offset, offset + tdmr.PIECE));
    });
  },

  detail(text) {
    try { return JSON.parse(text).detail; } catch { return ""; }
  },

  async refusal(answer) {
    return new Error(tdmr.detail(await answer.text()) || `HTTP ${answer.status}`);
  },

  // Classify one image, and show the probabilities as bars.
  async predict(box, student) {
    const [file] = box.querySelector("input[type=file]").files;
    const said = box.querySelector("[role=status]");
    const bars = box.querySelector(".bars");
    if (!file) return;
    const picture = box.querySelector("img");
    picture.src = URL.createObjectURL(file);
    picture.hidden = false;
    said.textContent = "…";
    const form = new FormData();
    form.append("image", file);
    try {
      const answer = await fetch(`${HERE}/v1/students/${student}/predict`, { method: "POST", body: form });
      if (!answer.ok) throw await tdmr.refusal(answer);
      const [found] = (await answer.json()).predictions;
      bars.replaceChildren(...found.classes.map(tdmr.bar));
      said.textContent = `${found.classes[0].name}, ${(100 * found.classes[0].probability).toFixed(1)} %`;
    } catch (error) {
      bars.replaceChildren();
      said.textContent = error.message;
    }
  },

  bar(each) {
    const item = document.createElement("li");
    const name = document.createElement("span");
    const bar = document.createElement("progress");
    const share = document.createElement("span");
    name.textContent = each.name;
    bar.className = "meter";
    bar.max = 1;
    bar.value = each.probability;
    bar.setAttribute("aria-label", each.name);
    share.textContent = `${(100 * each.probability).toFixed(1)} %`;
    item.append(name, bar, share);
    return item;
  },
};

window.tdmr = tdmr;
tdmr.listen();
window.addEventListener("load", () => tdmr.theme());
