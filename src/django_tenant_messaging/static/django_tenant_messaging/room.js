// @ts-check
import { MessagingClient, isNewMessage, newClientId } from "./client.js";
import { Composer } from "./page/composer.js";
import { readConfig, reasonOf, socketUrl } from "./page/config.js";
import { ConnectionLine } from "./page/connection.js";
import { Deletion } from "./page/deletion.js";
import { byId, fill, part, showText } from "./page/dom.js";
import { Editor } from "./page/editor.js";
import { Members } from "./page/members.js";
import { MessageList } from "./page/messages.js";
import { Naming } from "./page/naming.js";
import { Notifications } from "./page/notifications.js";
import { Scroller } from "./page/scroller.js";
import { localiseTimes } from "./page/times.js";
import { Typing } from "./page/typing.js";
import { UnsentStore } from "./page/unsent.js";
import { Versions } from "./page/versions.js";

/** @typedef {import("./page/messages.js").Draft} Draft */

const config = readConfig();
const { room, texts } = config;
const client = new MessagingClient({ url: socketUrl(config.socket), positions: config.positions });
const store = new UnsentStore(config);
localiseTimes(document);
const messages = new MessageList(config);
let readSeq = config.readSeq;
const scroller = new Scroller(() => markRead());
const typing = new Typing(client, config);
const composer = new Composer(texts, {
  send: (content, replyTo) => write({ clientId: newClientId(), content, replyTo }),
  typing: (isTyping) => typing.tell(isTyping),
});
/** @param {unknown} error */
const reason = (error) => reasonOf(texts, error);
const editor = new Editor(messages.list, texts, {
  reason,
  save: async (item, content) => {
    const { message } = await client.edit(room, Number(item.dataset.id), content);
    scroller.keep(() => messages.change(item, { ...message, content }));
  },
});
const deletion = new Deletion(texts, {
  reason,
  confirm: async (item) => {
    const { message } = await client.delete(room, Number(item.dataset.id));
    scroller.keep(() => messages.change(item, { ...message, content: "" }));
  },
});
const versions = new Versions(messages.list, texts, {
  reason,
  read: (item) => client.revisions(room, Number(item.dataset.id)),
});
const naming = new Naming(texts, { reason, rename: (name) => client.rename(room, name) });
new ConnectionLine(client, texts);
new Notifications(client, config);
new Members(client, config);

messages.list.addEventListener("message-changed", (event) => {
  const item = /** @type {HTMLElement} */ (event.target);
  composer.refresh({ id: Number(item.dataset.id), ...messages.excerpt(item) });
});

/** @param {Draft} draft */
function write(draft) {
  store.keep(draft);
  scroller.append(() => messages.showUnsent(draft), { follow: true });
  send(draft);
}

/** @param {Draft} draft */
async function send({ clientId, content, replyTo }) {
  try {
    const { message } = await client.send(room, content, { clientId, replyTo });
    messages.acknowledge(clientId, message);
    store.forget(clientId);
  } catch (error) {
    messages.fail(clientId, reasonOf(texts, error));
  }
}

/** What is in view of a visible page at the end of the list has been read. */
async function markRead() {
  const seq = client.position(room)?.seq ?? 0;
  if (document.visibilityState !== "visible" || !scroller.isAtEnd || seq <= readSeq || client.status.state !== "open") {
    return;
  }
  const before = readSeq;
  readSeq = seq;
  try {
    await client.markRead(room, seq);
  } catch {
    readSeq = Math.min(readSeq, before);
  }
}

async function loadOlder() {
  const older = /** @type {HTMLButtonElement} */ (byId("older"));
  const log = byId("log");
  older.disabled = true;
  log.setAttribute("aria-live", "off");
  try {
    const page = await messages.received(client.history(room, { before: messages.oldest }));
    scroller.prepend(() => {
      page.messages.forEach((message) => messages.show(message));
      messages.showQuotes();
    });
    older.hidden = !page.has_before;
    showText(byId("history-notice"), "");
  } catch (error) {
    showText(byId("history-notice"), fill(texts.historyFailed, { reason: reasonOf(texts, error) }));
  }
  log.setAttribute("aria-live", "polite");
  older.disabled = false;
}

/** Show the newest page instead of what was shown: too much was missed for a stream of events. */
async function startOver() {
  try {
    const page = await messages.received(client.history(room));
    scroller.append(() => messages.startOver(page));
    byId("older").hidden = !page.has_before;
  } catch {
    // The connection was lost again; the page would have a hole.
    location.reload();
  }
}

/**
 * @param {string} name
 * @param {(frame: any) => void} listener
 */
function onRoom(name, listener) {
  client.addEventListener(name, (event) => {
    const frame = /** @type {import("./client.js").ClientEvent} */ (event).detail;
    if (frame.room === room) {
      listener(frame);
    }
  });
}

onRoom("message", (frame) => {
  const { message } = frame;
  if (!isNewMessage(frame)) {
    scroller.keep(() => messages.replace(message));
    markRead();
    return;
  }
  const isOwn = message.sender?.id === config.me.id;
  store.forget(message.client_id);
  typing.note(message.sender ?? config.me, 0);
  scroller.append(() => messages.show(message), { follow: isOwn });
});
onRoom("members", () => markRead());
client.addEventListener("hello", (event) => {
  const { rooms } = /** @type {import("./client.js").ClientEvent} */ (event).detail;
  const found = rooms.find((/** @type {import("./client.js").Room} */ { id }) => id === room);
  // A renaming may be among what was missed and isn't sent again.
  if (found?.kind === "group") {
    naming.show(found.name);
  }
});
onRoom("room", ({ name }) => {
  naming.show(name);
  markRead();
});
onRoom("reset", () => location.reload());
onRoom("room_removed", () => {
  composer.disable(texts.removed);
  messages.close();
});
let mustStartOver = false;
onRoom("limited", () => {
  mustStartOver = true;
});
client.addEventListener("status", () => {
  if (client.status.state !== "open") {
    return;
  }
  if (mustStartOver) {
    mustStartOver = false;
    startOver();
  }
  markRead();
});
document.addEventListener("visibilitychange", () => markRead());
byId("older").addEventListener("click", loadOlder);

messages.list.addEventListener("click", (event) => {
  const target = /** @type {HTMLElement} */ (event.target);
  const item = /** @type {HTMLElement | null} */ (target.closest(".message"));
  const action = /** @type {HTMLElement | null} */ (target.closest("[data-action]"))?.dataset.action;
  if (item === null) {
    return;
  }
  if (action === "reply") {
    composer.answer({ id: Number(item.dataset.id), ...messages.excerpt(item) });
  } else if (action === "edit") {
    editor.open(item);
  } else if (action === "delete") {
    deletion.ask(item, messages.excerpt(item));
  } else if (action === "versions") {
    versions.toggle(item);
  } else if (action !== undefined) {
    redo(item, action);
  } else if (target.matches(".quote") && messages.find(Number(item.dataset.reply)) === null) {
    event.preventDefault();
    showAnswered(Number(item.dataset.reply));
  }
});

/**
 * @param {HTMLElement} item Of a message that the server refused.
 * @param {string} action
 */
function redo(item, action) {
  const clientId = item.dataset.clientId ?? "";
  const draft = store.all().find((kept) => kept.clientId === clientId);
  const content = part(item, "content").textContent ?? "";
  const replyTo = item.dataset.reply ? Number(item.dataset.reply) : null;
  store.forget(clientId);
  messages.discard(clientId);
  if (action === "retry") {
    // The server has refused the old client id for good.
    write({ ...(draft ?? { content, replyTo }), clientId: newClientId() });
  }
}

/** @param {number} id */
async function showAnswered(id) {
  const older = byId("older");
  while (messages.find(id) === null && !older.hidden && byId("history-notice").hidden) {
    await loadOlder();
  }
  messages.find(id)?.scrollIntoView({ block: "center" });
  messages.find(id)?.focus({ preventScroll: true });
}

store.all().forEach(write);
client.start();
