//! What a method needs, in words: for docs/api.md, which is made of the same table that every call is judged by here.

use super::reference::{Deed, Needs, Thing};
use super::table::{ROWS, Row};

/// What a caller must be allowed for `/package.Service/Method`.
pub(in super::super) fn needs_in_words(path: &str) -> String {
    let rows = ROWS.iter().filter(|row| row.path() == path);
    let needs: Vec<String> = rows.map(words).collect();
    assert!(!needs.is_empty(), "there is no row for {path}");
    needs.join("; for some requests ")
}

fn words(row: &Row) -> String {
    match row.needs {
        Needs::Nothing | Needs::Client => "nothing more".to_owned(),
        Needs::All([(Deed::Admin, Thing::Cluster)]) => "`admin` on the cluster".to_owned(),
        Needs::All([(Deed::Describe, Thing::Cluster)]) => {
            "`describe` on the cluster, which every client has".to_owned()
        }
        Needs::All(all) => {
            let each = all
                .iter()
                .map(|(deed, thing)| format!("`{}` on the {}", deed_word(*deed), thing_word(*thing)));
            each.collect::<Vec<_>>().join(" and ")
        }
        Needs::OfTenant(deed) => format!("`{}` on the tenant, or to be an operator", deed_word(deed)),
        Needs::NewTopic => "`manage` on the topic's name".to_owned(),
    }
}

fn deed_word(deed: Deed) -> &'static str {
    match deed {
        Deed::Produce => "produce",
        Deed::Consume => "consume",
        Deed::Describe => "describe",
        Deed::Manage => "manage",
        Deed::Admin => "admin",
    }
}

fn thing_word(thing: Thing) -> &'static str {
    match thing {
        Thing::Topic => "topic",
        Thing::Group => "group",
        Thing::Tenant => "tenant",
        Thing::Cluster => "cluster",
    }
}
