// @ts-check
import assert from "node:assert/strict";
import test from "node:test";

import { isolated } from "../../src/django_tenant_messaging/static/django_tenant_messaging/page/dom.js";

test("a name changes nothing around it", () => {
  for (const [name, shown] of [
    ["bob", "bob"],
    ["Ольга 会社 👍🏽", "Ольга 会社 👍🏽"],
    ["👨\u200d👩\u200d👧", "👨\u200d👩\u200d👧"],
    ["שלום", "\u2068שלום\u2069"],
    ["bob\u202etxet", "bob txet"],
    ["\u2069\u202eשלום", "\u2068  שלום\u2069"],
    ["bob\nroot: \u001b[31m", "bob root:  [31m"],
  ]) {
    assert.equal(isolated(name), shown);
  }
});
