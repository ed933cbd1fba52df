// Tenants with their quotas and use, and the policy: who has which role, and what roles may do.

import { get, query } from "./api.js";
import { h } from "./dom.js";
import { bytes, number } from "./format.js";
import { bar, pager, search, table, tag } from "./parts.js";

const LIMITS = {
  produce_bytes_per_second: ["Produced, a second", bytes],
  consume_bytes_per_second: ["Consumed, a second", bytes],
  requests_per_second: ["Requests, a second", number],
  connections: ["Connections", number],
  streams: ["Streams", number],
  topics: ["Topics", number],
  partitions: ["Partitions", number],
  groups: ["Groups", number],
  stored_bytes: ["Stored", bytes],
};

export async function content({ parts, query: asked, go }) {
  if (parts.length === 1) return one(parts[0]);
  const wanted = { search: asked.get("search") ?? "", page: asked.get("page") ?? "" };
  const [{ tenants }, policy] = await Promise.all([get(`/tenants${query(wanted)}`), get("/access")]);
  const columns = [
    { name: "Tenant", cell: (tenant) => h("a", { href: `#/tenants/${encodeURIComponent(tenant.name)}` }, tenant.name) },
    { name: "State", cell: (tenant) => (tenant.suspended ? tag("warn", "Suspended") : tag("good", "Active")) },
    { name: "Topics", cell: (tenant) => number(tenant.topics), kind: "number" },
    { name: "Partitions", cell: (tenant) => number(tenant.partitions), kind: "number" },
    { name: "Quotas set", cell: (tenant) => number(tenant.limits), kind: "number wide" },
  ];
  return h("div", { class: "page" },
    h("h1", { tabindex: -1 }, "Tenants and access"),
    search("Find a tenant", wanted.search, (text) => go(`#/tenants${query({ search: text })}`)),
    table("Tenants", columns, tenants.rows, (tenant) => tenant.name, "There is no such tenant."),
    pager(tenants, (page) => `#/tenants${query({ ...wanted, page })}`, "tenants"),
    access(policy));
}

async function one(name) {
  const path = encodeURIComponent(name);
  const [told, policy] = await Promise.all([get(`/tenants/${path}`), get(`/access${query({ tenant: name })}`)]);
  const clients = [
    { name: "Client", cell: (client) => client.client },
    ...["produce_bytes_per_second", "consume_bytes_per_second", "requests_per_second", "connections"].map((limit) => ({
      name: LIMITS[limit][0],
      kind: limit === "connections" ? "number wide" : "number",
      cell: (client) => used(client.uses.find((use) => use.limit === limit)),
    })),
  ];
  return h("div", { class: "page" },
    h("p", { class: "back" }, h("a", { href: "#/tenants" }, "All tenants")),
    h("h1", { tabindex: -1 }, name),
    told.tenant.suspended && h("p", { class: "lead" }, tag("warn", "Suspended"), " Its clients may do nothing."),
    h("section", { "aria-labelledby": "use" }, h("h2", { id: "use" }, "Use and quotas"), h("ul", { class: "uses" }, told.uses.map(meter))),
    h("section", { "aria-labelledby": "clients" }, h("h2", { id: "clients" }, "Clients that use something"),
      table(`Clients of ${name}`, clients, told.clients, (client) => client.client, "None at present.")),
    access(policy));
}

function used(use) {
  if (!use) return "–";
  const [, format] = LIMITS[use.limit];
  return use.most === null ? format(use.used) : `${format(use.used)} of ${format(use.most)}`;
}

function meter(use) {
  const [name] = LIMITS[use.limit];
  const near = use.most !== null && use.used > 0.8 * use.most;
  const words = use.most === null ? "no quota" : near ? "near the quota" : "within the quota";
  return h("li", { class: "use", "data-key": use.limit },
    h("span", null, name), h("strong", null, used(use)),
    use.most === null ? h("span", { class: "small" }, words) : bar(use.used, use.most, `${name}: ${used(use)}, ${words}`, near ? "warn" : "wave"));
}

function place(domain) {
  return { "@cluster": "the cluster", "*": "each tenant it is granted in" }[domain] ?? domain;
}

function access(policy) {
  if (!policy.has_policy) {
    return h("section", { "aria-labelledby": "policy" }, h("h2", { id: "policy" }, "Access"),
      h("p", null, "There is no policy yet: each client may do everything in its own tenant, and nothing elsewhere."));
  }
  const grants = [
    { name: "Client", cell: (grant) => h("code", null, grant.client) },
    { name: "Role", cell: (grant) => grant.role },
    { name: "In", cell: (grant) => place(grant.domain) },
  ];
  const rules = [
    { name: "Role or client", cell: (rule) => h("code", null, rule.subject) },
    { name: "May", cell: (rule) => (rule.allows ? tag("good", "may") : tag("bad", "may not")) },
    { name: "Do", cell: (rule) => (rule.action === "*" ? "anything" : rule.action) },
    { name: "To", cell: (rule) => (rule.resource === "*" ? "everything" : h("code", null, rule.resource)) },
    { name: "In", cell: (rule) => place(rule.domain), kind: "wide" },
  ];
  const more = (shown, all) => shown < all && h("p", { class: "legend" }, `The first ${shown} of ${number(all)}; highwater access list shows all.`);
  return [
    h("section", { "aria-labelledby": "grants" }, h("h2", { id: "grants" }, "Who has which role"),
      table("Roles of clients", grants, policy.grants, (grant) => `${grant.client} ${grant.role} ${grant.domain}`), more(policy.grants.length, policy.grants_in_all)),
    h("section", { "aria-labelledby": "rules" }, h("h2", { id: "rules" }, "What they may do"),
      table("Rules of the policy", rules, policy.rules, (rule) => Object.values(rule).join(" ")), more(policy.rules.length, policy.rules_in_all)),
  ];
}
