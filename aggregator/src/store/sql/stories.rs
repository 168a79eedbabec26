//! What people read: incidents with their lines, and notices with what became of them.
//!
//! One text for all databases: compiled once as a module of each.

use super::decide::state_name;
use super::dialect::{self, Pool, text};
use super::read::{from_json, limit_of};
use crate::incident::{Incident, NoticeState, NoticeStatus, TimelineEntry};
use crate::store::{IncidentFilter, StoreError, StoreResult};
use entrenar::unit::Timestamp;

pub(super) async fn incidents(
    readers: &Pool,
    filter: IncidentFilter,
) -> StoreResult<Vec<Incident>> {
    let (before_at, before_id) = filter.before.map(|(at, id)| (at.0, id)).unzip();
    let rows: Vec<(String,)> = sqlx::query_as(dialect::INCIDENTS)
        .bind(filter.open.map(i64::from))
        .bind(filter.kind.map(text))
        .bind(filter.severity.map(text))
        .bind(filter.job.map(text))
        .bind(filter.node.map(text))
        .bind(before_at)
        .bind(before_id.map(text))
        .bind(limit_of(filter.limit))
        .bind(filter.shadow.map(i64::from))
        .fetch_all(readers)
        .await?;
    rows.iter().map(|(doc,)| from_json(doc)).collect()
}

pub(super) async fn incident(
    readers: &Pool,
    id: String,
) -> StoreResult<Option<(Incident, Vec<TimelineEntry>, Vec<NoticeStatus>)>> {
    let mut tx = readers.begin().await?;
    let doc: Option<String> = sqlx::query_scalar("SELECT doc FROM incident WHERE id = $1")
        .bind(text(id.as_str()))
        .fetch_optional(&mut *tx)
        .await?;
    let Some(doc) = doc else { return Ok(None) };
    let lines: Vec<(i64, String, String, Option<String>)> = sqlx::query_as(
        "SELECT at_ms, what, who, note FROM incident_timeline WHERE incident_id = $1 ORDER BY at_ms, id",
    )
    .bind(text(id.as_str()))
    .fetch_all(&mut *tx)
    .await?;
    let notices: Vec<NoticeRow> = sqlx::query_as(
        "SELECT doc, state, attempts, next_attempt_at_ms, delivered_at_ms, last_error FROM notice
         WHERE incident_id = $1 ORDER BY created_at_ms, delivery_id",
    )
    .bind(text(id.as_str()))
    .fetch_all(&mut *tx)
    .await?;
    let line = |(at, what, who, note)| TimelineEntry {
        at: Timestamp(at),
        what,
        who,
        note,
    };
    let notices = notices
        .into_iter()
        .map(notice)
        .collect::<StoreResult<_>>()?;
    Ok(Some((
        from_json(&doc)?,
        lines.into_iter().map(line).collect(),
        notices,
    )))
}

type NoticeRow = (
    String,
    String,
    i64,
    Option<i64>,
    Option<i64>,
    Option<String>,
);

fn notice(row: NoticeRow) -> StoreResult<NoticeStatus> {
    let (doc, state, attempts, next_attempt_at, delivered_at, last_error) = row;
    Ok(NoticeStatus {
        notice: from_json(&doc)?,
        state: [
            NoticeState::Pending,
            NoticeState::Delivered,
            NoticeState::Dead,
        ]
        .into_iter()
        .find(|known| state_name(*known) == state)
        .ok_or_else(|| StoreError::Corrupt(format!("a notice is in a state '{state}'")))?,
        attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
        next_attempt_at: next_attempt_at.map(Timestamp),
        delivered_at: delivered_at.map(Timestamp),
        last_error,
    })
}

pub(super) async fn notices(
    readers: &Pool,
    state: Option<NoticeState>,
    before: Option<(Timestamp, String)>,
    limit: usize,
) -> StoreResult<Vec<NoticeStatus>> {
    let (before_at, before_id) = before.map(|(at, id)| (at.0, id)).unzip();
    let rows: Vec<NoticeRow> = sqlx::query_as(
        "SELECT doc, state, attempts, next_attempt_at_ms, delivered_at_ms, last_error FROM notice
         WHERE ($1 IS NULL OR state = $1) AND ($2 IS NULL OR (created_at_ms, delivery_id) < ($2, $3))
         ORDER BY created_at_ms DESC, delivery_id DESC LIMIT $4",
    )
    .bind(state.map(state_name))
    .bind(before_at)
    .bind(before_id.map(text))
    .bind(limit_of(limit))
    .fetch_all(readers)
    .await?;
    rows.into_iter().map(notice).collect()
}

pub(super) async fn pending_notices(readers: &Pool) -> StoreResult<Vec<NoticeStatus>> {
    let rows: Vec<NoticeRow> = sqlx::query_as(
        "SELECT doc, state, attempts, next_attempt_at_ms, delivered_at_ms, last_error FROM notice
         WHERE state = 'pending' ORDER BY created_at_ms, delivery_id",
    )
    .fetch_all(readers)
    .await?;
    rows.into_iter().map(notice).collect()
}
