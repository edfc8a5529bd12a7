// Brings documents to the server and shows how far it is with them.

import { Failure, events, getJson, postForm } from "./client.js";
import { announce, byId, make } from "./dom.js";

// Shows its part of the page if the server takes documents: then its description knows the way to them.
export async function offerUpload() {
  const { paths } = await getJson("openapi.json");
  const section = byId("upload");
  section.hidden = !("/v1/documents" in paths);
  if (section.hidden || section.querySelector("form")) return;
  const files = make("input", { type: "file", multiple: true, id: "files" });
  const jobs = make("ul", { class: "jobs", "aria-label": "Uploads" });
  const send = (event) => {
    event.preventDefault();
    if (!files.files.length) return;
    const entry = new Entry([...files.files]);
    jobs.prepend(entry.root);
    entry.send();
    files.value = "";
  };
  section.append(
    make("form", { onsubmit: send }, make("div", { class: "controls" },
      make("label", { class: "choice" }, make("span", {}, "Files to add to the corpus"), files), make("button", { type: "submit" }, "Upload"))),
    jobs);
}

class Entry {
  constructor(files) {
    this.files = files;
    this.name = files.map((file) => file.name).join(", ");
    this.bar = make("progress", { "aria-label": `Progress of ${this.name}` });
    this.state = make("span", { class: "state" }, "sending");
    this.root = make("li", {}, make("bdi", {}, this.name), " ", this.bar, " ", this.state);
  }

  async send() {
    try {
      const form = new FormData();
      for (const file of this.files) form.append("file", file, file.name);
      let job = await postForm("v1/documents", form);
      for await (const text of events(`v1/jobs/${encodeURIComponent(job.id)}/events`)) {
        job = JSON.parse(text);
        this.show(job);
      }
      if (job.finished === null) throw new Failure("The server stopped telling how far it is.");
      announce(`${this.name}: ${this.state.textContent}`);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      this.fail(error.message);
    }
  }

  show({ status, progress, result, error }) {
    const { done, total, unit } = progress;
    if (total) {
      this.bar.max = total;
      this.bar.value = status === "done" ? total : done;
    }
    if (status === "failed") this.fail(error.message);
    else this.state.textContent = status === "done" ? `done${told(result)}` : `${status}, ${done}${total ? ` of ${total}` : ""} ${unit}`;
  }

  fail(reason) {
    this.state.textContent = `failed: ${reason}`;
    this.state.className = "state failed";
    this.bar.remove();
    announce(`${this.name}: ${this.state.textContent}`);
  }
}

function told(result) {
  const counts = ["added", "updated", "unchanged", "passages"].filter((name) => result[name]).map((name) => `${result[name].toLocaleString("en")} ${name}`);
  const skipped = result.skipped.map(({ name, reason }) => `left out ${name} (${reason})`);
  return [...counts, ...skipped, ...result.notes].map((text) => `; ${text}`).join("");
}
