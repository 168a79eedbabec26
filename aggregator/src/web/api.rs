//! The JSON API: what the board, scripts and people ask.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Extension, FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use entrenar::unit::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Web;
use super::error::Problem;
use super::view::{Gpu, IncidentDetail, IncidentView, Job, Node, NotificationView, Page};
use crate::access::Person;
use crate::andon::{Kind, Light, Severity};
use crate::incident::{CloseReason, Incident, NoticeState, light};
use crate::store::IncidentFilter;

/// Items of a page, unless asked otherwise; and at most.
const DEFAULT_LIMIT: usize = 500;
const MAX_LIMIT: usize = 5000;

/// Longest note, in characters.
const MAX_NOTE_CHARS: usize = 4000;

pub(super) type Answer<T> = Result<T, Problem>;

/// The query string, or a problem that says what is wrong with it.
pub(super) struct QueryOf<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryOf<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query: Result<Query<T>, QueryRejection> = Query::from_request_parts(parts, state).await;
        query
            .map(|Query(q)| Self(q))
            .map_err(|e| Problem::bad_request(e.body_text()))
    }
}

/// How many, and from where on.
#[derive(Debug, Default)]
pub(super) struct Slice {
    limit: usize,
    cursor: Option<String>,
}

impl Slice {
    pub(super) fn new(limit: Option<usize>, cursor: Option<String>) -> Answer<Self> {
        match limit {
            Some(0) => Err(Problem::bad_request("limit must be at least 1")),
            Some(n) => Ok(Self {
                limit: n.min(MAX_LIMIT),
                cursor,
            }),
            None => Ok(Self {
                limit: DEFAULT_LIMIT,
                cursor,
            }),
        }
    }

    /// One page of items that are sorted by `key`.
    pub(super) fn page<T, V>(
        &self,
        items: &[T],
        key: impl Fn(&T) -> String,
        view: impl Fn(&T) -> V,
    ) -> Page<V> {
        let start = match &self.cursor {
            Some(cursor) => items.partition_point(|item| key(item) <= *cursor),
            None => 0,
        };
        let end = (start + self.limit).min(items.len());
        let page = &items[start..end];
        let next = (end < items.len()).then(|| page.last().map(&key)).flatten();
        Page {
            items: page.iter().map(view).collect(),
            next,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NodesQuery {
    limit: Option<usize>,
    cursor: Option<String>,
}

/// `GET /api/v1/nodes`
pub(super) async fn nodes(
    State(web): State<Arc<Web>>,
    QueryOf(query): QueryOf<NodesQuery>,
) -> Answer<Json<Page<Node>>> {
    let slice = Slice::new(query.limit, query.cursor)?;
    let nodes = web.line.ask(|line| line.nodes()).await?;
    let now = web.clock.now();
    Ok(Json(slice.page(
        &nodes,
        |n| n.name.to_string(),
        |n| Node::of(n, now),
    )))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GpusQuery {
    node: Option<String>,
    job: Option<String>,
    light: Option<Light>,
    limit: Option<usize>,
    cursor: Option<String>,
}

/// `GET /api/v1/gpus`
pub(super) async fn gpus(
    State(web): State<Arc<Web>>,
    QueryOf(query): QueryOf<GpusQuery>,
) -> Answer<Json<Page<Gpu>>> {
    let slice = Slice::new(query.limit, query.cursor)?;
    let mut gpus = web.line.ask(|line| line.gpus()).await?;
    gpus.retain(|g| {
        query
            .node
            .as_deref()
            .is_none_or(|node| g.at.node.as_str() == node)
            && query.light.is_none_or(|light| g.light == light)
            && query
                .job
                .as_deref()
                .is_none_or(|job| g.holder.as_ref().is_some_and(|h| h.job == job))
    });
    let key = |g: &crate::line::view::Gpu| format!("{}\u{0}{:06}", g.at.node, g.at.device);
    Ok(Json(slice.page(&gpus, key, Gpu::of)))
}

/// `GET /api/v1/jobs`
pub(super) async fn jobs(
    State(web): State<Arc<Web>>,
    QueryOf(query): QueryOf<NodesQuery>,
) -> Answer<Json<Page<Job>>> {
    let slice = Slice::new(query.limit, query.cursor)?;
    let jobs = web.line.ask(|line| line.jobs()).await?;
    Ok(Json(slice.page(&jobs, |j| j.job.clone(), Job::of)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IncidentsQuery {
    state: Option<StateFilter>,
    kind: Option<Kind>,
    severity: Option<Severity>,
    /// Those of rules that are on trial, instead of those that people are told of.
    #[serde(default)]
    shadow: bool,
    node: Option<String>,
    job: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum StateFilter {
    Open,
    Closed,
    All,
}

/// `GET /api/v1/incidents`
pub(super) async fn incidents(
    State(web): State<Arc<Web>>,
    QueryOf(query): QueryOf<IncidentsQuery>,
) -> Answer<Json<Page<IncidentView>>> {
    let slice = Slice::new(query.limit, query.cursor)?;
    let filter = IncidentFilter {
        open: match query.state.unwrap_or(StateFilter::Open) {
            StateFilter::Open => Some(true),
            StateFilter::Closed => Some(false),
            StateFilter::All => None,
        },
        kind: query.kind.map(|k| k.name().into()),
        severity: query.severity.map(|s| s.name().into()),
        shadow: Some(query.shadow),
        node: query.node,
        job: query.job,
        before: slice.cursor.as_deref().map(parse_cursor).transpose()?,
        // One more, to know whether there is a next page.
        limit: slice.limit + 1,
    };
    let mut found = web.store.incidents(filter).await?;
    let next = cut(&mut found, slice.limit, |i| cursor(i.fired_at, &i.id));
    Ok(Json(Page {
        items: found.iter().map(view).collect(),
        next,
    }))
}

fn view(incident: &Incident) -> IncidentView {
    IncidentView::of(incident, light::of_incident(incident))
}

/// Cuts a list to a page; where there was more, the cursor of its last item.
fn cut<T>(items: &mut Vec<T>, limit: usize, cursor: impl Fn(&T) -> String) -> Option<String> {
    let more = items.len() > limit;
    items.truncate(limit);
    items.last().filter(|_| more).map(cursor)
}

fn cursor(at: Timestamp, id: &str) -> String {
    format!("{}~{id}", at.as_millis())
}

fn parse_cursor(text: &str) -> Answer<(Timestamp, String)> {
    let (ms, id) = text.split_once('~').unwrap_or_default();
    let ms = ms
        .parse()
        .map_err(|_| Problem::bad_request("cursor is not one that this server gave"))?;
    Ok((Timestamp(ms), id.to_owned()))
}

/// `GET /api/v1/incidents/{id}`
pub(super) async fn incident(
    State(web): State<Arc<Web>>,
    Path(id): Path<String>,
) -> Answer<Json<IncidentDetail>> {
    detail(&web, &id).await.map(Json)
}

async fn detail(web: &Web, id: &str) -> Answer<IncidentDetail> {
    let Some((incident, timeline, notices)) = web.store.incident(id).await? else {
        return Err(Problem::not_found(format!("there is no incident {id}")));
    };
    Ok(IncidentDetail {
        incident: view(&incident),
        timeline: timeline.iter().map(Into::into).collect(),
        notifications: notices.iter().map(Into::into).collect(),
    })
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AcknowledgeBody {
    note: Option<String>,
}

/// `POST /api/v1/incidents/{id}/acknowledge`
pub(super) async fn acknowledge(
    State(web): State<Arc<Web>>,
    Path(id): Path<String>,
    Extension(person): Extension<Person>,
    body: Result<Json<AcknowledgeBody>, JsonRejection>,
) -> Answer<Json<IncidentDetail>> {
    let note = note(
        body.map_err(|e| Problem::bad_request(e.body_text()))?
            .0
            .note,
    )?;
    let incident = id.clone();
    web.line
        .decide(move |line, now| line.acknowledge(&incident, &person.name, note, now))
        .await?
        .map_err(|e| Problem::new(super::book_status(&e), e.to_string()))?;
    detail(&web, &id).await.map(Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CloseBody {
    reason: CloseReason,
    note: Option<String>,
}

/// `POST /api/v1/incidents/{id}/close`
pub(super) async fn close(
    State(web): State<Arc<Web>>,
    Path(id): Path<String>,
    Extension(person): Extension<Person>,
    body: Result<Json<CloseBody>, JsonRejection>,
) -> Answer<Json<IncidentDetail>> {
    let Json(body) = body.map_err(|e| Problem::bad_request(e.body_text()))?;
    let note = note(body.note)?;
    let incident = id.clone();
    web.line
        .decide(move |line, now| line.close(&incident, body.reason, &person.name, note, now))
        .await?
        .map_err(|e| Problem::new(super::book_status(&e), e.to_string()))?;
    detail(&web, &id).await.map(Json)
}

fn note(note: Option<String>) -> Answer<Option<String>> {
    let note = note.map(|n| n.trim().to_owned()).filter(|n| !n.is_empty());
    if note
        .as_ref()
        .is_some_and(|n| n.chars().count() > MAX_NOTE_CHARS)
    {
        return Err(Problem::bad_request(format!(
            "a note has at most {MAX_NOTE_CHARS} characters"
        )));
    }
    Ok(note)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NotificationsQuery {
    state: Option<NoticeState>,
    limit: Option<usize>,
    cursor: Option<String>,
}

/// `GET /api/v1/notifications`
pub(super) async fn notifications(
    State(web): State<Arc<Web>>,
    QueryOf(query): QueryOf<NotificationsQuery>,
) -> Answer<Json<Page<NotificationView>>> {
    let slice = Slice::new(query.limit, query.cursor)?;
    let before = slice.cursor.as_deref().map(parse_cursor).transpose()?;
    let mut found = web
        .store
        .notices(query.state, before, slice.limit + 1)
        .await?;
    let next = cut(&mut found, slice.limit, |n| {
        cursor(n.notice.created_at, &n.notice.delivery_id)
    });
    Ok(Json(Page {
        items: found.iter().map(Into::into).collect(),
        next,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_without_a_gap() {
        let items: Vec<String> = ["a", "b", "c", "d", "e"].map(String::from).into();
        let page = |limit, cursor: Option<&str>| {
            let cursor = cursor.map(String::from);
            let slice = Slice { limit, cursor };
            let page = slice.page(&items, Clone::clone, Clone::clone);
            (page.items.join(""), page.next)
        };
        assert_eq!(page(2, None), ("ab".into(), Some("b".into())));
        assert_eq!(page(2, Some("b")), ("cd".into(), Some("d".into())));
        assert_eq!(page(2, Some("d")), ("e".into(), None));
        assert_eq!(page(5, None), ("abcde".into(), None));
    }

    #[test]
    fn a_foreign_cursor_is_refused() {
        assert!(parse_cursor("12~ab").is_ok());
        assert!(parse_cursor("ab").is_err());
        assert!(parse_cursor("").is_err());
    }
}
