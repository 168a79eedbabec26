//! Decisions: incidents, their lines and what is to be told, in one transaction; and what became of telling it.
//!
//! One text for all databases: compiled once as a module of each.

use super::dialect::{Connection, text};
use super::transaction::{begin, finish};
use crate::incident::{Decision, Incident, Notice, NoticeState, TimelineEntry};
use crate::store::error::bad_json;
use crate::store::filter::{job_of, nodes_of};
use crate::store::{Attempt, StoreResult};

pub(super) async fn decide(db: &mut Connection, mut decision: Decision) -> StoreResult<()> {
    // What closes goes first: it may make room for what opens on the same cord.
    decision
        .incidents
        .sort_by_key(|incident| incident.state.is_open());
    begin(db).await?;
    let done = keep(db, &decision).await;
    finish(db, done).await
}

async fn keep(tx: &mut Connection, decision: &Decision) -> StoreResult<()> {
    for incident in &decision.incidents {
        keep_incident(tx, incident).await?;
    }
    for (incident, line) in &decision.timeline {
        keep_line(tx, incident, line).await?;
    }
    for notice in &decision.notices {
        keep_notice(tx, notice).await?;
    }
    for (cord, at) in &decision.cords {
        sqlx::query(
            "INSERT INTO cord (rule, scope, last_transition_at_ms) VALUES ($1, $2, $3)
             ON CONFLICT (rule, scope) DO UPDATE SET last_transition_at_ms = excluded.last_transition_at_ms
             WHERE cord.last_transition_at_ms < excluded.last_transition_at_ms",
        )
        .bind(&*cord.rule.0)
        .bind(text(cord.scope.as_str()))
        .bind(at.0)
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

async fn keep_incident(tx: &mut Connection, incident: &Incident) -> StoreResult<()> {
    let doc = serde_json::to_string(incident).map_err(|error| bad_json(&error))?;
    let nodes = serde_json::to_string(&nodes_of(incident)).map_err(|error| bad_json(&error))?;
    sqlx::query(
        "INSERT INTO incident (id, rule, scope, open, kind, severity, job, nodes, fired_at_ms,
             last_transition_at_ms, ordinal, doc)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
         ON CONFLICT (id) DO UPDATE SET rule = excluded.rule, scope = excluded.scope, open = excluded.open,
             kind = excluded.kind, severity = excluded.severity, job = excluded.job, nodes = excluded.nodes,
             fired_at_ms = excluded.fired_at_ms, last_transition_at_ms = excluded.last_transition_at_ms,
             ordinal = excluded.ordinal, doc = excluded.doc
         WHERE (incident.last_transition_at_ms, incident.ordinal) < (excluded.last_transition_at_ms, excluded.ordinal)",
    )
    .bind(&incident.id)
    .bind(&*incident.rule.0)
    .bind(text(incident.scope.key()))
    .bind(i64::from(incident.state.is_open()))
    .bind(incident.kind.name())
    .bind(incident.severity.name())
    .bind(job_of(incident).map(text))
    .bind(text(nodes))
    .bind(incident.fired_at.0)
    .bind(incident.last_transition_at.0)
    .bind(i64::from(incident.ordinal))
    .bind(text(doc))
    .execute(tx)
    .await?;
    Ok(())
}

async fn keep_line(tx: &mut Connection, incident: &str, line: &TimelineEntry) -> StoreResult<()> {
    sqlx::query(
        "INSERT INTO incident_timeline (incident_id, at_ms, what, who, note) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT DO NOTHING",
    )
    .bind(incident)
    .bind(line.at.0)
    .bind(text(line.what.as_str()))
    .bind(text(line.who.as_str()))
    .bind(line.note.as_deref().map(text))
    .execute(tx)
    .await?;
    Ok(())
}

async fn keep_notice(tx: &mut Connection, notice: &Notice) -> StoreResult<()> {
    let doc = serde_json::to_string(notice).map_err(|error| bad_json(&error))?;
    sqlx::query(
        "INSERT INTO notice (delivery_id, incident_id, created_at_ms, state, attempts, doc)
         VALUES ($1, $2, $3, $4, 0, $5) ON CONFLICT (delivery_id) DO NOTHING",
    )
    .bind(&notice.delivery_id)
    .bind(&notice.incident.id)
    .bind(notice.created_at.0)
    .bind(state_name(NoticeState::Pending))
    .bind(text(doc))
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn record_attempts(
    db: &mut Connection,
    attempts: Vec<Attempt>,
) -> StoreResult<()> {
    begin(db).await?;
    let done = record(db, attempts).await;
    finish(db, done).await
}

async fn record(tx: &mut Connection, attempts: Vec<Attempt>) -> StoreResult<()> {
    for attempt in attempts {
        let delivered = attempt.state == NoticeState::Delivered;
        sqlx::query(
            "UPDATE notice SET state = $1, attempts = attempts + 1, next_attempt_at_ms = $2,
                 delivered_at_ms = $3, last_error = $4 WHERE delivery_id = $5",
        )
        .bind(state_name(attempt.state))
        .bind(attempt.next_attempt_at.map(|at| at.0))
        .bind(delivered.then_some(attempt.at.0))
        .bind(attempt.error.map(text))
        .bind(attempt.delivery_id)
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

/// As the column has it.
pub(super) const fn state_name(state: NoticeState) -> &'static str {
    match state {
        NoticeState::Pending => "pending",
        NoticeState::Delivered => "delivered",
        NoticeState::Dead => "dead",
    }
}
