//! The rules as they hold: what each is called, finds and says.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use entrenar::report::Labels;
use serde::{Deserialize, Serialize};

use super::Web;
use super::api::{Answer, QueryOf, Slice};
use super::view::Page;
use crate::andon::Kind;
use crate::andon::rules::RuleSummary;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RulesQuery {
    limit: Option<usize>,
    cursor: Option<String>,
}

#[derive(Serialize)]
pub(super) struct RuleView {
    rule: String,
    kind: &'static str,
    /// False: it stands under `custom` in the rules file.
    built_in: bool,
    enabled: bool,
    shadow: bool,
    severity: &'static str,
    runbook_url: Option<String>,
    labels: Labels,
    /// How many overrides of the rules file name it: there it may be otherwise.
    overrides: usize,
}

impl RuleView {
    fn of(rule: &RuleSummary) -> Self {
        Self {
            rule: rule.rule.to_string(),
            kind: rule.kind.name(),
            built_in: rule.kind != Kind::Custom,
            enabled: rule.enabled,
            shadow: rule.shadow,
            severity: rule.severity.name(),
            runbook_url: rule.runbook_url.clone(),
            labels: rule.labels.clone(),
            overrides: rule.overrides,
        }
    }
}

/// `GET /api/v1/rules`, by name
pub(super) async fn rules(
    State(web): State<Arc<Web>>,
    QueryOf(query): QueryOf<RulesQuery>,
) -> Answer<Json<Page<RuleView>>> {
    let slice = Slice::new(query.limit, query.cursor)?;
    let mut rules = web.line.ask(|line| line.rules().summaries()).await?;
    rules.sort_by(|a, b| a.rule.cmp(&b.rule));
    Ok(Json(slice.page(
        &rules,
        |rule| rule.rule.to_string(),
        RuleView::of,
    )))
}
