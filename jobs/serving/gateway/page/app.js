// The page: settings, conversation, and what the buttons do.

import { answer as stream, models, Trouble } from "./api.js";
import { Answer } from "./turn.js";
import { language, say, setLanguage, translate } from "./words.js";

const at = (id) => document.getElementById(id);
const user = `page-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`; // keeps this visitor on one variant
const turnTemplate = at("turn");

let offered = []; // models with their variants
let turns = []; // { prompt, answers: [Answer] }
let stopping = null; // AbortController of the answers under way
let trouble = null; // what the page as a whole complains about

function paint() {
  document.documentElement.lang = language();
  translate(document);
  at("language").textContent = language() === "ko" ? "English" : "한국어";
  at("language").lang = language() === "ko" ? "en" : "ko";
  for (const turn of turns) for (const answer of turn.answers) answer.paint();
  at("error").textContent = trouble ? say(trouble.word, trouble.values) : "";
  at("empty").hidden = turns.length > 0;
  const variants = chosenModel()?.variants ?? [];
  at("compare").disabled = variants.length < 2;
  if (variants.length < 2) at("compare").checked = false;
}

function complain(error) {
  if (error && !(error instanceof Trouble)) throw error;
  trouble = error;
  paint();
}

const chosenModel = () => offered.find((model) => model.id === at("model").value);

async function loadModels() {
  try {
    offered = await models(at("key").value.trim());
    const before = at("model").value;
    at("model").replaceChildren(...offered.map(({ id }) => new Option(id, id, false, id === before)));
    complain(offered.length ? null : new Trouble("noModels"));
  } catch (error) {
    complain(error);
  }
}

// What a variant is told of the conversation: its own answers, and where it gave none those that there were.
function history(variant, prompt) {
  const messages = [];
  for (const turn of turns) {
    const said = turn.answers.find((answer) => answer.variant === variant && answer.text) ?? turn.answers.find((answer) => answer.text);
    if (said) messages.push({ role: "user", content: turn.prompt }, { role: "assistant", content: said.text });
  }
  return [...messages, { role: "user", content: prompt }];
}

async function follow(answer, key, request) {
  try {
    for await (const piece of stream(key, request)) {
      answer.take(piece);
      keepInSight();
    }
    answer.end();
  } catch (error) {
    if (error.name === "AbortError") answer.end({ word: "stopped" });
    else if (error instanceof Trouble) answer.end(error);
    else throw error;
  }
}

// Follows the text only for a reader who is at its end already.
function keepInSight(always = false) {
  // In a narrow window the page scrolls, in a wide one the conversation by itself.
  const view = at("log").scrollHeight > at("log").clientHeight ? at("log") : document.scrollingElement;
  if (always || view.scrollHeight - view.scrollTop - view.clientHeight < 160) view.scrollTop = view.scrollHeight;
}

function busy(now) {
  const [from, to] = now ? [at("send"), at("stop")] : [at("stop"), at("send")];
  const focused = document.activeElement === from;
  from.hidden = true;
  to.hidden = false;
  if (focused) (now ? to : at("prompt")).focus();
}

async function send() {
  const prompt = at("prompt").value.trim();
  const model = chosenModel();
  if (!prompt || !model || stopping) return;
  complain(null);
  const key = at("key").value.trim();
  const wanted = at("compare").checked ? model.variants.slice(0, 2) : [null];
  const requests = wanted.map((variant) => ({ model: model.id, messages: history(variant, prompt), user, variant }));
  const turn = { prompt, answers: wanted.map(() => new Answer(key)) };
  turns.push(turn);
  const element = turnTemplate.content.cloneNode(true).firstElementChild;
  element.querySelector(".said .text").textContent = prompt;
  element.querySelector(".answers").append(...turn.answers.map((answer) => answer.element));
  at("turns").append(element);
  at("prompt").value = "";
  at("status").textContent = say("waiting");
  stopping = new AbortController();
  busy(true);
  paint();
  keepInSight(true);
  const { signal } = stopping;
  await Promise.all(turn.answers.map((answer, index) => follow(answer, key, { ...requests[index], signal })));
  stopping = null;
  busy(false);
  keepInSight();
  // Announced once and whole: token by token a screen reader would never come to an end.
  at("status").textContent = turn.answers.map(({ text }) => say("finished", { text })).join(" ");
}

function startAnew() {
  stopping?.abort();
  turns = [];
  at("turns").replaceChildren();
  at("status").textContent = "";
  complain(null);
  at("prompt").focus();
}

function keepKey() {
  if (at("remember").checked) sessionStorage.setItem("key", at("key").value.trim());
  else sessionStorage.removeItem("key");
}

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
at("prompt").addEventListener("keydown", (event) => {
  // Enter also ends the composition of a Hangul syllable; keyCode 229 is how Safari tells that one.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  send();
});
at("stop").addEventListener("click", () => stopping?.abort());
at("new").addEventListener("click", startAnew);
at("language").addEventListener("click", () => {
  setLanguage(language() === "ko" ? "en" : "ko");
  paint();
});
at("settings").addEventListener("submit", (event) => event.preventDefault());
at("model").addEventListener("change", paint);
at("remember").addEventListener("change", keepKey);
at("key").addEventListener("change", () => {
  keepKey();
  loadModels();
});

at("key").value = sessionStorage.getItem("key") ?? "";
at("remember").checked = at("key").value !== "";
paint();
loadModels();
