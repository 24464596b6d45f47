// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";

import { isNewMessage } from "../../src/django_tenant_messaging/static/django_tenant_messaging/client.js";
import { FakeSocket, Stage, hello, message, room, settled } from "./fakes.js";

test("connects with the subprotocol, and is open once it has resumed", async () => {
  const stage = new Stage();
  stage.client.start();
  assert.deepEqual(stage.socket.protocols, ["tenant-messaging.v1"]);
  assert.equal(stage.client.status.state, "connecting");
  await stage.greet();
  assert.equal(stage.client.status.state, "open");
  assert.deepEqual(stage.client.user, { id: "1", username: "alice" });
  assert.deepEqual(stage.client.position(1), { epoch: "e1", seq: 10 });
});

test("starts only once", async () => {
  const stage = await new Stage().open();
  stage.client.start();
  assert.equal(stage.sockets.length, 1);
});

test("resumes from the positions it was given", async () => {
  const stage = new Stage({ positions: { 1: { epoch: "e1", seq: 7 } } });
  await stage.open([room(), room({ id: 2, seq: 5 })], { 1: { status: "ok", seq: 7 } });
  assert.deepEqual(stage.socket.requests("resume")[0].positions, { 1: { epoch: "e1", seq: 7 } });
  await stage.socket.says(message(8));
  assert.deepEqual(stage.messages(), [8]);
  assert.deepEqual(stage.client.position(2), { epoch: "e1", seq: 5 });
});

test("delivers in order, drops duplicates, and moves over skipped positions", async () => {
  const stage = await new Stage().open();
  await stage.socket.says(message(11));
  await stage.socket.says(message(11));
  await stage.socket.says(message(9));
  await stage.socket.says({ type: "skip", room: 1, after: 11, seq: 14 });
  await stage.socket.says({ type: "members", room: 1, seq: 15, joined: [], left: [] });
  await stage.socket.says(message(18, { after: 15 }));
  assert.deepEqual(stage.messages(), [11, 18]);
  assert.equal(stage.seen("members").length, 1);
  assert.equal(stage.client.position(1)?.seq, 18);
  assert.equal(stage.sockets.length, 1);
});

test("a gap isn't shown but resumed over", async () => {
  const stage = await new Stage().open();
  await stage.socket.says(message(12));
  assert.equal(stage.client.status.state, "lost");
  assert.ok(stage.socket.closed);
  await stage.clock.pass(1_000);
  await stage.greet([room({ seq: 12 })], { 1: { status: "ok", seq: 10 } });
  assert.deepEqual(stage.socket.requests("resume")[0].positions, { 1: { epoch: "e1", seq: 10 } });
  await stage.socket.says(message(11));
  await stage.socket.says(message(12));
  assert.deepEqual(stage.messages(), [11, 12]);
});

test("a frame of an unknown room is a gap", async () => {
  const stage = await new Stage().open();
  await stage.socket.says(message(1, { room: 99 }));
  assert.equal(stage.client.status.state, "lost");
});

test("reconnects with the positions it has reached", async () => {
  const stage = await new Stage().open();
  await stage.socket.says(message(11));
  await stage.reconnect();
  await stage.greet([room({ seq: 13 })], { 1: { status: "ok", seq: 11 } });
  assert.deepEqual(stage.socket.requests("resume")[0].positions, { 1: { epoch: "e1", seq: 11 } });
  await stage.socket.says(message(12));
  await stage.socket.says(message(13));
  assert.deepEqual(stage.messages(), [11, 12, 13]);
});

test("holds events back that overtake the answer to resume", async () => {
  const stage = new Stage({ positions: { 1: { epoch: "e1", seq: 3 } } });
  stage.client.start();
  await stage.socket.says({ type: "hello", user: {}, heartbeat_interval: 25, rooms: [room({ seq: 50 })] });
  const { id } = stage.socket.requests("resume")[0];
  stage.socket.says(message(51));
  stage.socket.says({ type: "ok", id, rooms: { 1: { status: "limited", seq: 50 } } });
  await settled();
  assert.deepEqual(stage.seen("limited"), [{ type: "limited", room: 1, after: 3, seq: 50 }]);
  assert.deepEqual(stage.messages(), [51]);
});

test("a history that is another one resets the room", async () => {
  const stage = new Stage({ positions: { 1: { epoch: "old", seq: 99 } } });
  await stage.open([room({ seq: 4 })], { 1: { status: "reset", seq: 4 } });
  assert.equal(stage.seen("reset").length, 1);
  assert.deepEqual(stage.client.position(1), { epoch: "e1", seq: 4 });
});

test("rooms that are gone are given up, by hello, by resume and live", async () => {
  const positions = Object.fromEntries([1, 2, 3].map((id) => [id, { epoch: "e1", seq: 1 }]));
  const stage = new Stage({ positions });
  await stage.open([room({ id: 2 }), room({ id: 3, seq: 1 })], { 2: { status: "gone" } });
  await stage.socket.says({ type: "room_removed", room: 3 });
  assert.deepEqual(stage.seen("room_removed").map((frame) => frame.room), [1, 2, 3]);
  assert.equal(stage.client.position(3), undefined);
});

test("with more rooms than the server follows, those that it doesn't name are read again and not given up", async () => {
  const positions = { 1: { epoch: "e1", seq: 10 }, 2: { epoch: "e1", seq: 4 } };
  const stage = new Stage({ positions });
  stage.client.start();
  await stage.socket.says({ ...hello(), rooms_limited: true });
  await stage.socket.answers("resume", { rooms: {} });
  assert.deepEqual(stage.seen("room_removed"), []);
  assert.deepEqual(stage.seen("limited"), [{ type: "limited", room: 2, after: 4, seq: 4 }]);
  // Reading it makes the server follow it, from where it is by then.
  await stage.socket.says({ type: "room_added", room: room({ id: 2, seq: 7 }) });
  await stage.socket.says(message(8, { room: 2 }));
  assert.deepEqual(stage.messages(), [8]);
  assert.equal(stage.client.status.state, "open");
});

test("a room that is added streams from its position", async () => {
  const stage = await new Stage().open();
  await stage.socket.says({ type: "room_added", room: room({ id: 7, seq: 3 }) });
  await stage.socket.says(message(4, { room: 7 }));
  assert.equal(stage.seen("room_added").length, 1);
  assert.deepEqual(stage.messages(), [4]);
});

test("more rooms than a resume may name are read from the history", async () => {
  const ids = Array.from({ length: 501 }, (_, index) => index + 1);
  const positions = Object.fromEntries(ids.map((id) => [id, { epoch: "e1", seq: 1 }]));
  const stage = await new Stage({ positions }).open(ids.map((id) => room({ id })));
  assert.equal(Object.keys(stage.socket.requests("resume")[0].positions).length, 500);
  assert.deepEqual(stage.seen("limited"), [{ type: "limited", room: 501, after: 1, seq: 10 }]);
});

test("a send is answered with its receipt", async () => {
  const stage = await new Stage().open();
  const sent = stage.client.send(1, "Hello team", { replyTo: 5 });
  const [frame] = stage.socket.requests("send");
  assert.match(frame.client_id, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.deepEqual([frame.room, frame.content, frame.reply_to], [1, "Hello team", 5]);
  await stage.socket.answers("send", { room: 1, message: { id: 9, seq: 11 }, duplicate: false });
  assert.equal((await sent).message.seq, 11);
});

test("what was written offline goes out once there is a connection", async () => {
  const stage = new Stage();
  const sent = stage.client.send(1, "early");
  await stage.open();
  assert.deepEqual(stage.socket.requests("send").map(({ content }) => content), ["early"]);
  await stage.socket.answers("send", { room: 1, message: { seq: 11 }, duplicate: false });
  await sent;
});

test("a send without an answer is repeated with the same client id after reconnecting", async () => {
  const stage = await new Stage().open();
  const sent = stage.client.send(1, "once");
  const [first] = stage.socket.requests("send");
  await stage.reconnect();
  await stage.greet([room({ seq: 11 })], { 1: { status: "ok", seq: 10 } });
  const [second] = stage.socket.requests("send");
  assert.equal(second.client_id, first.client_id);
  await stage.socket.answers("send", { room: 1, message: { seq: 11 }, duplicate: true });
  assert.equal((await sent).duplicate, true);
  await stage.reconnect();
  await stage.greet([room({ seq: 11 })]);
  assert.equal(stage.socket.requests("send").length, 0);
});

test("what is sent while the socket closes goes out by the next one", async () => {
  const stage = await new Stage().open();
  const closing = stage.socket;
  closing.readyState = 2;
  const sent = stage.client.send(1, "late");
  await settled();
  assert.deepEqual(closing.requests("send"), []);
  await stage.reconnect();
  await stage.greet();
  assert.deepEqual(stage.socket.requests("send").map(({ content }) => content), ["late"]);
  await stage.socket.answers("send", { room: 1, message: { seq: 11 }, duplicate: false });
  await sent;
});

test("a refused send is rejected with the server's code and not repeated", async () => {
  const stage = await new Stage().open();
  const sent = stage.client.send(1, " ");
  stage.socket.refuses("send", "invalid", { errors: [{ field: "content", reason: "must not be empty" }] });
  await assert.rejects(sent, { name: "MessagingError", code: "invalid", message: "No." });
  await stage.reconnect();
  await stage.greet();
  assert.equal(stage.socket.requests("send").length, 0);
});

test("a send that the server can't take now is repeated on the same socket", async () => {
  const stage = await new Stage().open();
  const sent = stage.client.send(1, "later");
  await stage.socket.refuses("send", "unavailable");
  await stage.clock.pass(5_000);
  const frames = stage.socket.requests("send");
  assert.equal(frames.length, 2);
  assert.equal(frames[0].client_id, frames[1].client_id);
  await stage.socket.answers("send", { room: 1, message: { seq: 11 }, duplicate: false });
  await sent;
});

test("sends that are too much wait for as long as the server says, and keep their order", async () => {
  const stage = await new Stage().open();
  const sent = ["one", "two", "three"].map((content) => stage.client.send(1, content));
  const contents = () => stage.socket.requests("send").map(({ content }) => content);
  assert.deepEqual(contents(), ["one", "two", "three"]);
  const ids = stage.socket.requests("send").map(({ id }) => id);
  const details = { retry_after: 0.5, scope: "user", limit: { rate: 20, burst: 60 } };
  for (const id of ids) {
    await stage.socket.says({ type: "error", id, code: "rate_limited", message: "No.", details });
  }
  stage.client.send(1, "four");
  await stage.clock.pass(499);
  assert.equal(contents().length, 3);
  await stage.clock.pass(1);
  assert.deepEqual(contents().slice(3), ["one", "two", "three", "four"]);
  const repeated = stage.socket.requests("send")[3];
  assert.equal(repeated.client_id, stage.socket.requests("send")[0].client_id);
  await stage.socket.says({ type: "ok", id: repeated.id, room: 1, message: { seq: 11 }, duplicate: false });
  assert.equal((await sent[0]).message.seq, 11);
});

test("no more than a few sends are on their way at once", async () => {
  const stage = await new Stage().open();
  const number = 50;
  const sent = Promise.all(Array.from({ length: number }, (_, index) => stage.client.send(1, `number ${index}`)));
  assert.equal(stage.socket.requests("send").length, 16);
  for (let answered = 0; answered < number; answered += 1) {
    const { id } = stage.socket.requests("send")[answered];
    await stage.socket.says({ type: "ok", id, room: 1, message: { seq: 11 + answered }, duplicate: false });
    assert.equal(stage.socket.requests("send").length, Math.min(number, answered + 17));
  }
  assert.equal((await sent).length, number);
  const contents = stage.socket.requests("send").map(({ content }) => content);
  assert.deepEqual(contents, Array.from({ length: number }, (_, index) => `number ${index}`));
});

test("what was on its way when the link was lost goes out again", async () => {
  const stage = await new Stage().open();
  for (let index = 0; index < 20; index += 1) {
    stage.client.send(1, `number ${index}`);
  }
  await stage.reconnect();
  await stage.greet();
  assert.deepEqual(stage.socket.requests("send").map(({ content }) => content)[0], "number 0");
  assert.equal(stage.socket.requests("send").length, 16);
});

test("a send that nobody answers means a dead link", async () => {
  const stage = await new Stage().open();
  stage.client.send(1, "anybody?");
  await stage.clock.pass(20_000);
  assert.equal(stage.client.status.state, "lost");
});

test("4401 of an open connection is tried once more: the browser may have another session by now", async () => {
  const stage = await new Stage().open();
  await stage.socket.drops(4401);
  assert.equal(stage.client.status.state, "lost");
  await stage.clock.pass(1_000);
  await stage.greet();
  assert.equal(stage.client.status.state, "open");
});

test("4401 is final: no other attempt, and waiting sends are rejected", async () => {
  const stage = await new Stage().open();
  const sent = stage.client.send(1, "too late");
  await stage.socket.drops(4401);
  await stage.clock.pass(1_000);
  stage.socket.drops(4401);
  await assert.rejects(sent, { code: "closed", details: { reason: "unauthenticated" } });
  assert.deepEqual(stage.client.status, { state: "closed", code: 4401, reason: "unauthenticated" });
  await stage.clock.pass(600_000);
  assert.equal(stage.sockets.length, 2);
  await assert.rejects(stage.client.send(1, "still"), { code: "closed" });
});

for (const code of [4400, 4403, 4404, 4406, 4413]) {
  test(`${code} is final`, async () => {
    const stage = await new Stage().open();
    await stage.socket.drops(code);
    assert.equal(stage.client.status.state, "closed");
  });
}

for (const code of [1001, 1006, 1011, 1012, 4408, 4429, 4503]) {
  test(`${code} is tried again`, async () => {
    const stage = await new Stage().open();
    await stage.socket.drops(code);
    assert.equal(stage.client.status.state, "lost");
    await stage.clock.pass(1_000);
    assert.equal(stage.sockets.length, 2);
  });
}

test("waits a random share of a limit that doubles from 1 to 30 s, and starts over when stable", async () => {
  const stage = await new Stage({ random: () => 1 }).open();
  const waits = [];
  for (let attempt = 0; attempt < 7; attempt += 1) {
    await stage.socket.drops(1006);
    const { retryIn } = stage.seen("status").at(-1);
    waits.push(retryIn);
    await stage.clock.pass(retryIn);
  }
  assert.deepEqual(waits, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
  await stage.greet();
  await stage.clock.pass(10_000);
  await stage.socket.drops(1006);
  assert.equal(stage.seen("status").at(-1).retryIn, 1_000);
});

test("jitter may be none at all", async () => {
  const stage = await new Stage({ random: () => 0 }).open();
  await stage.socket.drops(1006);
  assert.equal(stage.seen("status").at(-1).retryIn, 0);
});

test("connects at once when told to", async () => {
  const stage = await new Stage({ random: () => 1 }).open();
  await stage.socket.drops(1006);
  stage.client.retryNow();
  assert.equal(stage.sockets.length, 2);
  await stage.clock.pass(5_000);
  assert.equal(stage.sockets.length, 2);
});

const heartbeat = { type: "heartbeat", heads: { 1: 10 } };

test("pings when it said nothing from one heartbeat to the next", async () => {
  const stage = await new Stage().open();
  await stage.socket.says(heartbeat);
  assert.equal(stage.socket.requests("ping").length, 0);
  await stage.socket.says(heartbeat);
  assert.equal(stage.socket.requests("ping").length, 1);
  await stage.socket.answers("ping");
  await stage.socket.says(heartbeat);
  assert.equal(stage.socket.requests("ping").length, 1);
  await stage.socket.says(heartbeat);
  assert.equal(stage.socket.requests("ping").length, 2);
});

test("doesn't ping when it says something anyway", async () => {
  const stage = await new Stage().open();
  for (let number = 1; number <= 4; number += 1) {
    stage.client.setTyping(1, true);
    await stage.socket.says(heartbeat);
  }
  assert.equal(stage.socket.requests("ping").length, 0);
});

test("a ping without an answer is a dead link", async () => {
  const stage = await new Stage().open();
  await stage.socket.says(heartbeat);
  await stage.socket.says(heartbeat);
  await stage.clock.pass(19_999);
  assert.equal(stage.client.status.state, "open");
  await stage.clock.pass(1);
  assert.equal(stage.client.status.state, "lost");
});

test("a ping that is too much is a sign of life all the same", async () => {
  const stage = await new Stage().open();
  await stage.socket.says(heartbeat);
  await stage.socket.says(heartbeat);
  await stage.socket.refuses("ping", "rate_limited", { retry_after: 0.1 });
  assert.equal(stage.client.status.state, "open");
});

test("a head whose event doesn't come is a loss", async () => {
  const stage = await new Stage().open();
  await stage.socket.says({ type: "heartbeat", heads: { 1: 11 } });
  await stage.clock.pass(4_999);
  assert.equal(stage.client.status.state, "open");
  await stage.clock.pass(1);
  assert.equal(stage.client.status.state, "lost");
});

test("a head whose event is only late is none", async () => {
  const stage = await new Stage().open();
  await stage.socket.says({ type: "heartbeat", heads: { 1: 11 } });
  await stage.clock.pass(3_000);
  await stage.socket.says(message(11));
  await stage.clock.pass(10_000);
  assert.equal(stage.client.status.state, "open");
});

test("silence for two heartbeats is a dead link", async () => {
  const stage = await new Stage().open();
  await stage.clock.pass(49_000);
  assert.equal(stage.client.status.state, "open");
  await stage.clock.pass(1_000);
  assert.equal(stage.client.status.state, "lost");
  assert.ok(stage.socket.closed);
});

test("a server that doesn't say hello is a dead link", async () => {
  const stage = new Stage();
  stage.client.start();
  await stage.clock.pass(15_000);
  assert.equal(stage.client.status.state, "lost");
});

for (const data of ["<html>", "null", "[]", '{"id": 1}']) {
  test(`what isn't of the protocol ends the link: ${data}`, async () => {
    const stage = await new Stage().open();
    stage.socket.onmessage?.({ data });
    assert.equal(stage.client.status.state, "lost");
  });
}

test("several frames that come at once are taken in their order", async () => {
  const stage = await new Stage().open();
  const page = stage.client.history(1);
  await settled();
  const { id } = stage.socket.requests("history")[0];
  const typing = { type: "typing", room: 1, user: { id: "2", username: "bob" }, is_typing: true, expires_in: 6 };
  stage.socket.onmessage?.({ data: JSON.stringify([typing, { type: "error", id, code: "not_found", message: "", details: {} }]) });
  await assert.rejects(page, { code: "not_found" });
  stage.socket.onmessage?.({ data: JSON.stringify([{ type: "typing" }, 7]) });
  assert.equal(stage.client.status.state, "lost");
});

test("requests without a connection, or whose connection ends, are rejected", async () => {
  const stage = new Stage();
  await assert.rejects(stage.client.history(1), { code: "disconnected" });
  await stage.open();
  const page = stage.client.history(1, { before: 5, limit: 20 });
  await settled();
  const { id, ...frame } = stage.socket.requests("history")[0];
  assert.deepEqual(frame, { type: "history", room: 1, before: 5, limit: 20 });
  stage.socket.drops(1012);
  await assert.rejects(page, { code: "disconnected" });
});

test("history, read and typing speak the protocol", async () => {
  const stage = await new Stage().open();
  const page = stage.client.history(1);
  const read = stage.client.markRead(1, 10);
  const typing = stage.client.setTyping(1, true);
  await settled();
  assert.equal(stage.socket.requests("read")[0].seq, 10);
  assert.equal(stage.socket.requests("typing")[0].is_typing, true);
  await stage.socket.answers("history", { room: 1, messages: [], has_before: false, has_after: false });
  await stage.socket.answers("read", { room: 1, seq: 10 });
  await stage.socket.answers("typing");
  assert.deepEqual((await page).messages, []);
  await Promise.all([read, typing]);
});

test("changes speak the protocol", async () => {
  const stage = await new Stage().open();
  const changes = [
    ["edit", () => stage.client.edit(1, 105, "other"), { message_id: 105, content: "other" }],
    ["delete", () => stage.client.delete(1, 105), { message_id: 105 }],
    ["revisions", () => stage.client.revisions(1, 105, { before: 9, limit: 5 }), { message_id: 105, before: 9, limit: 5 }],
    ["rename", () => stage.client.rename(1, "crew"), { name: "crew" }],
  ];
  const replies = { message: { id: 105, changed_seq: 11 }, revisions: [{ id: 3, content: "one" }], name: "crew" };
  const outcomes = [];
  for (const [type, change, fields] of /** @type {any[]} */ (changes)) {
    const outcome = change();
    await settled();
    const { id, ...frame } = stage.socket.requests(type)[0];
    assert.deepEqual(frame, { type, room: 1, ...fields });
    await stage.socket.answers(type, { room: 1, ...replies });
    outcomes.push(await outcome);
  }
  assert.equal(outcomes[0].message.changed_seq, 11);
  assert.equal(outcomes[1].message.id, 105);
  assert.deepEqual(outcomes.slice(2), [replies.revisions, "crew"]);
});

test("a refused change is rejected with the server's code, and one without a connection at once", async () => {
  const stage = new Stage();
  await assert.rejects(stage.client.edit(1, 105, "other"), { code: "disconnected" });
  await stage.open();
  const refused = stage.client.delete(1, 105);
  await settled();
  stage.socket.refuses("delete", "forbidden");
  await assert.rejects(refused, { name: "MessagingError", code: "forbidden" });
  const lost = stage.client.rename(1, "crew");
  await settled();
  stage.socket.drops(1012);
  await assert.rejects(lost, { code: "disconnected" });
});

test("tells a new message from another state of an older one", async () => {
  const stage = await new Stage().open();
  const changed = { ...message(5).message, changed_seq: 12 };
  await stage.socket.says(message(11, { after: 10 }));
  await stage.socket.says(message(12, { after: 11, message: changed }));
  // Written and changed while the client was away: it comes once.
  await stage.socket.says(message(15, { after: 12, message: { ...message(13).message, changed_seq: 15 } }));
  assert.deepEqual(stage.seen("message").map(isNewMessage), [true, false, true]);
  assert.deepEqual(stage.messages(), [11, 12, 15]);
});

test("another name of the room moves the position, and so does a kind of change that it doesn't know", async () => {
  const stage = await new Stage().open();
  await stage.socket.says({ type: "room", room: 1, after: 10, seq: 11, name: "crew" });
  await stage.socket.says({ type: "of_the_future", room: 1, after: 11, seq: 12 });
  await stage.socket.says(message(13, { after: 12 }));
  assert.deepEqual(stage.seen("room").map(({ name }) => name), ["crew"]);
  assert.deepEqual(stage.messages(), [13]);
  assert.equal(stage.client.status.state, "open");
});

test("a stopped client stays stopped", async () => {
  const stage = await new Stage().open();
  const socket = /** @type {FakeSocket} */ (stage.socket);
  stage.client.stop();
  stage.client.stop();
  assert.ok(socket.closed);
  assert.deepEqual(stage.client.status, { state: "closed", code: 1000, reason: "stopped" });
  await stage.clock.pass(600_000);
  assert.equal(stage.sockets.length, 1);
  assert.equal(stage.clock.timers.size, 0);
});

test("late words of a socket that was given up change nothing", async () => {
  const stage = await new Stage().open();
  const old = stage.socket;
  await stage.reconnect();
  await stage.greet();
  await old.says(message(11));
  await old.drops(4401);
  assert.deepEqual(stage.messages(), []);
  assert.equal(stage.client.status.state, "open");
});
