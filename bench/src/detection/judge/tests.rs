//! Stories that hold the judge to the contract of the traces' labels.

use entrenar_aggregator::andon::Severity;
use entrenar_aggregator::backtest::{Culprit, Place, ScopeView};
use serde_json::json;

use super::{Verdict, blames_rightly, judge};
use crate::detection::finding::Finding;
use crate::detection::truth::Truth;

/// A critical hang of job 7 on n1 and n2 from 100 to 200.
fn hang() -> Truth {
    let label = json!({
        "kinds": ["JobHang", "JobStall"], "severity": "critical", "start": 100.0, "end": 200.0, "job": "7",
        "nodes": ["n1", "n2"], "gpus": [], "culprits": [{"node": "n1", "gpu": 3}], "deadline_s": 60.0,
        "related": ["GpuIdle"], "affected_nodes": ["n1", "n2"],
    });
    serde_json::from_value(label).unwrap()
}

fn said(kind: &'static str, severity: Severity, at: f64, scope: ScopeView) -> Finding {
    Finding {
        kinds: vec![kind],
        severity,
        scope,
        fired_at: at,
        culprits: Vec::new(),
        is_consequence: false,
        summary: String::new(),
    }
}

fn job(name: &str) -> ScopeView {
    ScopeView {
        job: Some(name.into()),
        ..ScopeView::default()
    }
}

fn nodes(names: &[&str]) -> ScopeView {
    ScopeView {
        nodes: names.iter().map(|name| (*name).into()).collect(),
        ..ScopeView::default()
    }
}

fn verdicts(findings: &[Finding], truths: &[Truth]) -> Vec<Verdict> {
    let (judged, _) = judge(findings, truths);
    judged.into_iter().map(|judged| judged.verdict).collect()
}

use Severity::{Critical, Info, Warning};
use Verdict::{Allowed, Duplicate, False, Hit, Quiet, Related, Repeat};

#[test]
fn an_incident_is_found_from_its_start_to_a_minute_after_its_end() {
    for (at, expected) in [(99.0, False), (100.0, Hit), (260.0, Hit), (260.5, False)] {
        let page = said("JobHang", Critical, at, job("7"));
        assert_eq!(verdicts(&[page], &[hang()]), [expected], "{at}");
    }
}

#[test]
fn a_warning_does_not_find_what_must_page_and_the_page_after_it_does() {
    let said = [
        said("JobStall", Warning, 120.0, job("7")),
        said("JobHang", Critical, 130.0, job("7")),
        said("JobHang", Critical, 140.0, job("7")),
        said("JobStall", Warning, 150.0, job("7")),
    ];
    let (_, found) = judge(&said, &[hang()]);
    assert_eq!(verdicts(&said, &[hang()]), [Repeat, Hit, Duplicate, Repeat]);
    assert_eq!(found, [(0, Some(1))]);
}

#[test]
fn half_of_the_nodes_that_are_named_must_be_the_incident_s() {
    let page = |names: &[&str]| [said("JobHang", Critical, 120.0, nodes(names))];
    assert_eq!(verdicts(&page(&["n1", "n8"]), &[hang()]), [Hit]);
    assert_eq!(verdicts(&page(&["n1", "n8", "n9"]), &[hang()]), [False]);
}

#[test]
fn a_gpu_of_a_node_that_the_label_names_is_in_it() {
    let gpu = |node: &str| ScopeView {
        gpus: vec![Place {
            node: node.into(),
            gpu: 0,
        }],
        ..ScopeView::default()
    };
    let page = |node| [said("JobHang", Critical, 120.0, gpu(node))];
    assert_eq!(verdicts(&page("n2"), &[hang()]), [Hit]);
    assert_eq!(verdicts(&page("n3"), &[hang()]), [False]);
}

#[test]
fn an_empty_scope_is_about_an_incident_of_the_fleet_only() {
    let page = [said("JobHang", Critical, 120.0, ScopeView::default())];
    assert_eq!(verdicts(&page, &[hang()]), [False]);
    let fleet = Truth {
        fleet: true,
        ..hang()
    };
    assert_eq!(verdicts(&page, &[fleet]), [Hit]);
}

#[test]
fn side_effects_are_duplicates_as_pages_and_nothing_as_warnings() {
    let idle = |severity| [said("GpuIdle", severity, 120.0, nodes(&["n2"]))];
    assert_eq!(verdicts(&idle(Warning), &[hang()]), [Related]);
    assert_eq!(verdicts(&idle(Critical), &[hang()]), [Duplicate]);
    let mild = Truth {
        severity: Warning,
        ..hang()
    };
    assert_eq!(verdicts(&idle(Critical), &[mild]), [False]);
}

#[test]
fn what_may_be_said_may_not_be_said_louder() {
    let may = Truth {
        required: false,
        severity: Warning,
        ..hang()
    };
    let stall = |severity| [said("JobStall", severity, 120.0, job("7"))];
    assert_eq!(
        verdicts(&stall(Warning), std::slice::from_ref(&may)),
        [Allowed]
    );
    assert_eq!(verdicts(&stall(Critical), &[may]), [False]);
}

#[test]
fn records_and_consequences_are_not_judged() {
    let mut explained = said("Xid", Critical, 120.0, nodes(&["n9"]));
    explained.is_consequence = true;
    let record = said("Xid", Info, 121.0, nodes(&["n9"]));
    assert_eq!(verdicts(&[explained, record], &[hang()]), [Quiet, Quiet]);
}

#[test]
fn a_finding_that_may_mean_several_things_counts_as_what_fits() {
    let mut page = said("GpuIdle", Critical, 120.0, job("7"));
    page.kinds = vec!["GpuIdle", "JobHang"];
    let (judged, _) = judge(&[page], &[hang()]);
    assert_eq!((judged[0].verdict, judged[0].kind), (Hit, "JobHang"));
}

#[test]
fn the_first_that_is_blamed_counts() {
    let mut page = said("JobHang", Critical, 120.0, job("7"));
    assert_eq!(blames_rightly(&page, &hang()), None);
    let culprit = |gpu| Culprit {
        node: "n1".into(),
        gpu,
    };
    page.culprits = vec![culprit(Some(3)), culprit(Some(4))];
    assert_eq!(blames_rightly(&page, &hang()), Some(true));
    page.culprits.reverse();
    assert_eq!(blames_rightly(&page, &hang()), Some(false));
    page.culprits = vec![culprit(None)];
    assert_eq!(blames_rightly(&page, &hang()), Some(false));
}
