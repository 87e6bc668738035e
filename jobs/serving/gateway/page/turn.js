// One answer on the page: its text as it arrives, who wrote it, how fast, and what the reader thinks of it.

import { sendFeedback, Trouble } from "./api.js";
import { say, translate } from "./words.js";

const template = document.querySelector("#answer");

export class Answer {
  text = "";
  variant = null;
  #state = "waiting"; // waiting, writing, done, or a word of words.js that says what went wrong
  #values = {};
  #key;
  #requestId = null;
  #pieces = 0;
  #tokens = null;
  #askedMs = performance.now();
  #firstMs = null;
  #endMs = null;
  #thanks = null;

  constructor(key) {
    this.#key = key;
    this.element = template.content.cloneNode(true).firstElementChild;
    this.#body = this.#find(".text").appendChild(document.createTextNode(""));
    this.#find("form").addEventListener("submit", (event) => this.#give(event));
    for (const thumb of this.element.querySelectorAll(".thumb")) thumb.addEventListener("click", () => this.#press(thumb));
    this.paint();
  }

  #body;

  #find(selector) {
    return this.element.querySelector(selector);
  }

  take({ variant, requestId, text, tokens }) {
    if (requestId) [this.variant, this.#requestId] = [variant, requestId];
    if (tokens) this.#tokens = tokens;
    if (text) {
      this.#firstMs ??= performance.now();
      this.#state = "writing";
      this.#pieces += 1;
      this.text += text;
      this.#body.appendData(text); // a text node: nothing in it is ever markup
      if (this.#pieces > 1) return;
    }
    this.paint();
  }

  end(trouble = null) {
    this.#endMs = performance.now();
    this.#state = trouble?.word ?? "done";
    this.#values = trouble?.values ?? {};
    this.paint();
  }

  // All words of it, in the language of now.
  paint() {
    translate(this.element);
    const who = this.variant ?? say("answer");
    this.#find(".who").textContent = who;
    this.element.setAttribute("aria-label", who);
    const busy = this.#state === "waiting" || this.#state === "writing";
    this.element.classList.toggle("busy", busy);
    this.#find(".figures").textContent = busy ? say(this.#state) : this.#figures();
    this.#find(".trouble").textContent = busy || this.#state === "done" ? "" : say(this.#state, this.#values);
    this.#find(".feedback").hidden = busy || !this.#requestId;
    this.#find(".thanks").textContent = this.#thanks ? say(this.#thanks.word, this.#thanks.values) : "";
  }

  #figures() {
    if (this.#firstMs === null) return "";
    const tokens = this.#tokens ?? this.#pieces;
    const seconds = (this.#endMs - this.#firstMs) / 1000;
    // The first token's time is in the wait before it.
    const rate = tokens > 1 && seconds > 0 ? ((tokens - 1) / seconds).toFixed(1) : "–";
    return say("figures", { first: Math.round(this.#firstMs - this.#askedMs), rate, tokens });
  }

  #press(thumb) {
    const pressed = thumb.getAttribute("aria-pressed") === "true";
    for (const other of this.element.querySelectorAll(".thumb")) other.setAttribute("aria-pressed", "false");
    thumb.setAttribute("aria-pressed", String(!pressed));
  }

  async #give(event) {
    event.preventDefault();
    const feedback = { request_id: this.#requestId };
    const thumb = this.#find(".thumb[aria-pressed=true]");
    const score = this.#find(".score").value;
    const comment = this.#find(".comment").value.trim();
    if (thumb) feedback.thumb = thumb.value;
    if (score) feedback.score = Number(score);
    if (comment) feedback.comment = comment;
    try {
      if (Object.keys(feedback).length === 1) throw new Trouble("nothingGiven");
      await sendFeedback(this.#key, feedback);
      this.#thanks = { word: "thanks" };
    } catch (trouble) {
      if (!(trouble instanceof Trouble)) throw trouble;
      this.#thanks = trouble;
    }
    this.paint();
  }
}
