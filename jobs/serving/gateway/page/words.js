// Every word of the page, in both languages. `{name}` is replaced by a value.

const en = {
  skip: "Skip to the message",
  new: "New chat",
  model: "Model",
  key: "API key",
  remember: "Keep until this tab closes",
  compare: "Champion and challenger side by side",
  keyNote: "The key stays in this page's memory and goes nowhere but to this server.",
  conversation: "Conversation",
  empty: "Ask something. Answers appear as they are written.",
  message: "Message",
  placeholder: "Your message",
  hint: "Enter sends, Shift+Enter makes a new line.",
  send: "Send",
  stop: "Stop",
  you: "You",
  answer: "Answer",
  waiting: "Waiting for the first word…",
  writing: "Writing…",
  figures: "First word after {first} ms · {rate} tokens/s · {tokens} tokens",
  stopped: "Stopped. What was written until then is above.",
  finished: "Answer finished: {text}",
  rate: "Rate this answer",
  up: "Good answer",
  down: "Bad answer",
  score: "Score",
  comment: "Comment",
  give: "Send feedback",
  thanks: "Thank you, it is noted.",
  nothingGiven: "Choose a thumb or a score, or write a comment.",
  feedbackOff: "This server does not collect feedback.",
  noModels: "This server offers no model.",
  keyNeeded: "This server asks for an API key. Enter it above.",
  keyWrong: "The server does not accept this API key.",
  keyCharacters: "An API key has only Latin letters, digits and signs, without spaces.",
  forbidden: "This key may not do that.",
  tooLong: "The message is too long for this server.",
  refused: "The server refused: {detail}",
  limited: "Too many requests. Try again in {seconds} s.",
  unavailable: "The model is not available at the moment. Try again in a while.",
  broken: "The answer broke off. What arrived is above; ask again to get all of it.",
  offline: "The server cannot be reached. Check the network and try again.",
};

const ko = {
  skip: "메시지 입력으로 건너뛰기",
  new: "새 대화",
  model: "모델",
  key: "API 키",
  remember: "이 탭을 닫을 때까지 기억",
  compare: "챔피언과 챌린저를 나란히",
  keyNote: "키는 이 페이지의 메모리에만 있고 이 서버로만 보냅니다.",
  conversation: "대화",
  empty: "무엇이든 물어보세요. 답변은 쓰이는 대로 나타납니다.",
  message: "메시지",
  placeholder: "메시지를 입력하세요",
  hint: "Enter로 보내고, Shift+Enter로 줄을 바꿉니다.",
  send: "보내기",
  stop: "멈추기",
  you: "나",
  answer: "답변",
  waiting: "첫 단어를 기다리는 중…",
  writing: "쓰는 중…",
  figures: "첫 단어까지 {first} ms · 초당 {rate}토큰 · {tokens}토큰",
  stopped: "멈췄습니다. 그때까지 쓴 내용이 위에 있습니다.",
  finished: "답변 완료: {text}",
  rate: "이 답변 평가하기",
  up: "좋은 답변",
  down: "나쁜 답변",
  score: "점수",
  comment: "의견",
  give: "평가 보내기",
  thanks: "고맙습니다. 기록했습니다.",
  nothingGiven: "엄지나 점수를 고르거나 의견을 적어 주세요.",
  feedbackOff: "이 서버는 평가를 받지 않습니다.",
  noModels: "이 서버에는 모델이 없습니다.",
  keyNeeded: "이 서버는 API 키가 필요합니다. 위에 입력해 주세요.",
  keyWrong: "서버가 이 API 키를 받아들이지 않습니다.",
  keyCharacters: "API 키는 공백 없이 영문자, 숫자, 기호로만 되어 있습니다.",
  forbidden: "이 키로는 할 수 없는 일입니다.",
  tooLong: "메시지가 이 서버의 한도보다 깁니다.",
  refused: "서버가 거절했습니다: {detail}",
  limited: "요청이 너무 많습니다. {seconds}초 뒤에 다시 시도해 주세요.",
  unavailable: "지금은 모델을 쓸 수 없습니다. 잠시 뒤에 다시 시도해 주세요.",
  broken: "답변이 중간에 끊겼습니다. 받은 내용은 위에 있으니 다시 물어봐 주세요.",
  offline: "서버에 연결할 수 없습니다. 네트워크를 확인하고 다시 시도해 주세요.",
};

const languages = { en, ko };
let current = sessionStorage.getItem("language") ?? (navigator.language.startsWith("ko") ? "ko" : "en");

export const language = () => current;

export function setLanguage(name) {
  current = name;
  sessionStorage.setItem("language", name);
}

export function say(word, values = {}) {
  return languages[current][word].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

// Puts the words into what is marked with data-text, data-label (for screen readers) and data-placeholder.
export function translate(root) {
  for (const element of root.querySelectorAll("[data-text]")) element.textContent = say(element.dataset.text);
  for (const element of root.querySelectorAll("[data-label]")) element.setAttribute("aria-label", say(element.dataset.label));
  for (const element of root.querySelectorAll("[data-placeholder]")) element.placeholder = say(element.dataset.placeholder);
}
