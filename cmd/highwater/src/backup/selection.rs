//! Which tenants or topics a backup or a restore is about.

use crate::names;

/// All, unless tenants or topics are named.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Selection {
    /// Only this tenant: its topics, its quotas, and who may do what in it. Repeatable.
    #[arg(long = "tenant", value_name = "NAME", conflicts_with = "topics")]
    pub(super) tenants: Vec<String>,
    /// Only this topic, with the offsets of its groups, and nothing of tenants and their policy. Repeatable.
    #[arg(long = "topic", value_name = "TENANT/TOPIC", value_parser = parse_topic)]
    pub(super) topics: Vec<TopicName>,
}

/// A topic with its tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TopicName {
    pub(super) tenant: String,
    pub(super) topic: String,
}

impl std::fmt::Display for TopicName {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}/{}", self.tenant, self.topic)
    }
}

fn parse_topic(text: &str) -> Result<TopicName, String> {
    let (tenant, topic) = text
        .split_once('/')
        .ok_or("write TENANT/TOPIC, for example shop/orders")?;
    for (what, name) in [("tenant", tenant), ("topic", topic)] {
        if let Some(why) = names::wrong(name) {
            return Err(format!("{what} {name:?} is not a valid name: {why}"));
        }
    }
    Ok(TopicName {
        tenant: tenant.to_owned(),
        topic: topic.to_owned(),
    })
}

impl Selection {
    /// Nothing was named.
    pub(super) fn is_all(&self) -> bool {
        self.tenants.is_empty() && self.topics.is_empty()
    }

    /// Whether a tenant as such belongs to it.
    pub(super) fn has_tenant(&self, tenant: &str) -> bool {
        self.topics.is_empty() && (self.tenants.is_empty() || self.tenants.iter().any(|name| name == tenant))
    }

    pub(super) fn has_topic(&self, tenant: &str, topic: &str) -> bool {
        let is_named = |name: &TopicName| name.tenant == tenant && name.topic == topic;
        self.has_tenant(tenant) || self.topics.iter().any(is_named)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_named_is_wanted_and_nothing_else() {
        let all = Selection::default();
        assert!(all.is_all() && all.has_tenant("shop") && all.has_topic("shop", "orders"));
        let shop = Selection {
            tenants: vec!["shop".to_owned()],
            ..Selection::default()
        };
        assert!(
            shop.has_topic("shop", "orders") && !shop.has_topic("billing", "orders") && !shop.has_tenant("billing")
        );
        let orders = Selection {
            topics: vec![parse_topic("shop/orders").unwrap()],
            ..Selection::default()
        };
        assert!(orders.has_topic("shop", "orders") && !orders.has_topic("shop", "returns"));
        assert!(!orders.has_tenant("shop") && !orders.is_all());
    }

    #[test]
    fn a_topic_is_named_with_its_tenant() {
        for wrong in ["orders", "/orders", "shop/", "shop/a/b", "../orders"] {
            assert!(parse_topic(wrong).is_err(), "{wrong}");
        }
    }
}
