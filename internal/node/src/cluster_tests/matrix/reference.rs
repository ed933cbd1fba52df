//! What docs/access.md and certs/policy.csv say, once more and as shortly as possible. The code that decides has no part in it.

/// Who calls. All are clients of tenant `shop` unless they say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    /// Not a client: it has a node's certificate.
    Node,
    /// An operator of the cluster, who owns a tenant of his own.
    Operator,
    Owner,
    Producer,
    Consumer,
    Viewer,
    /// Owns the tenant, but for a rule that denies consuming this very topic.
    Denied,
    /// Has rules about a topic and a group whose whole names are beginnings of these.
    Shorter,
    /// Has rules about all topics and groups whose names begin as these do, and go on.
    Longer,
    /// Has nothing.
    Stranger,
    /// Owns another tenant.
    Other,
    /// Of a tenant that nobody has made.
    Unmade,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Produce,
    Consume,
    Describe,
    Manage,
    Admin,
}

/// To what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thing {
    Topic,
    Group,
    Tenant,
    Cluster,
}

/// What a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// Any certificate of the cluster.
    Nothing,
    /// Any client's.
    Client,
    /// All of these, in this order.
    All(&'static [(Deed, Thing)]),
    /// This to the tenant, or to be an operator.
    OfTenant(Deed),
    /// To manage a topic that is to be made: that it is not there is no secret.
    NewTopic,
}

/// What comes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Whatever is not a refusal of access.
    Allowed,
    /// As if the topic did not exist, or because it does not.
    NotFound,
    Denied,
}

fn may(who: Who, deed: Deed, thing: Thing, is_own: bool) -> bool {
    use {Deed as D, Thing as T};
    match (who, deed, thing) {
        (Who::Node | Who::Unmade, ..) => false,
        // Every client finds nodes and leaders; only operators run the cluster.
        (who, deed, T::Cluster) => deed == D::Describe || who == Who::Operator,
        // Nobody here was granted anything in another tenant, and operators read nobody's records.
        _ if !is_own => false,
        (Who::Operator | Who::Owner | Who::Other, ..) => true,
        (Who::Denied, deed, thing) => (deed, thing) != (D::Consume, T::Topic),
        (Who::Producer, D::Describe, thing) => thing != T::Group,
        (Who::Producer, deed, thing) => (deed, thing) == (D::Produce, T::Topic),
        (Who::Consumer, D::Consume, thing) => thing != T::Tenant,
        (Who::Consumer | Who::Viewer, deed, _) => deed == D::Describe,
        (Who::Shorter | Who::Longer | Who::Stranger, ..) => false,
    }
}

/// What must come of a call about something of the caller's own tenant or of another one, that is there or is not.
pub(super) fn expected(who: Who, needs: Needs, names_topic: bool, is_own: bool, exists: bool) -> Outcome {
    let needed: &[(Deed, Thing)] = match needs {
        Needs::Nothing => return Outcome::Allowed,
        _ if who == Who::Node => return Outcome::Denied,
        Needs::Client => return Outcome::Allowed,
        Needs::OfTenant(_) if who == Who::Operator => &[],
        Needs::OfTenant(deed) if may(who, deed, Thing::Tenant, is_own) => &[],
        Needs::NewTopic if may(who, Deed::Manage, Thing::Topic, is_own) => &[],
        Needs::OfTenant(_) | Needs::NewTopic => return Outcome::Denied,
        Needs::All(needed) => needed,
    };
    for (deed, thing) in needed {
        let is_known = *thing != Thing::Topic || may(who, Deed::Describe, Thing::Topic, is_own);
        match may(who, *deed, *thing, is_own) {
            false if is_known || who == Who::Unmade => return Outcome::Denied,
            false => return Outcome::NotFound,
            true if *thing == Thing::Topic && !exists => return Outcome::NotFound,
            true => {}
        }
    }
    match exists || !names_topic {
        true => Outcome::Allowed,
        false => Outcome::NotFound,
    }
}
