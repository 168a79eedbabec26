//! The order of the house: who may depend on whom, and where every link in its pages leads.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use entrenar_tests::external::repository;
use serde_json::Value;

/// A page whose words are given, links to its neighbours included.
const GIVEN: &str = "gpu-monitoring.md";

/// Our crates and what each may use of the others.
const MAY_USE: &[(&str, &[&str])] = &[
    ("entrenar-gpu", &[]),
    ("entrenar-proto", &["entrenar-gpu"]),
    ("entrenar-agent", &["entrenar-gpu", "entrenar-proto"]),
    ("entrenar-aggregator", &["entrenar-gpu", "entrenar-proto"]),
    (
        "entrenar-cli",
        &[
            "entrenar-gpu",
            "entrenar-proto",
            "entrenar-agent",
            "entrenar-aggregator",
        ],
    ),
];

/// What a crate must never pull in, not even through others.
const KEPT_OUT: &[(&str, &[&str])] = &[
    ("entrenar-gpu", &["tokio", "tonic", "sqlx", "axum"]),
    ("entrenar-proto", &["sqlx"]),
    ("entrenar-agent", &["sqlx"]),
];

#[test]
fn our_crates_use_each_other_in_one_direction() {
    let graph = Graph::read();
    for (name, allowed) in MAY_USE {
        let ours = graph.direct(name).into_iter().filter(|dependency| {
            MAY_USE.iter().any(|(ours, _)| ours == dependency) || dependency.starts_with("entrenar")
        });
        for dependency in ours {
            assert!(
                allowed.contains(&dependency),
                "{name} may not use {dependency}"
            );
        }
    }
}

#[test]
fn the_library_knows_no_server_and_the_agent_no_database() {
    let graph = Graph::read();
    for (name, kept_out) in KEPT_OUT {
        let reached = graph.reached(name);
        for banned in *kept_out {
            assert!(
                !reached.contains(*banned),
                "{name} pulls in {banned}: `cargo tree -p {name} -i {banned} -e normal` says through what"
            );
        }
    }
}

/// Who depends on whom in what is shipped: tests and build scripts left out.
struct Graph(BTreeMap<String, BTreeSet<String>>);

impl Graph {
    fn read() -> Self {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let out = Command::new(cargo)
            .args(["metadata", "--format-version=1", "--locked"])
            .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
            .current_dir(repository())
            .output()
            .expect("cargo starts");
        let error = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "cargo metadata: {error}");
        let metadata: Value = serde_json::from_slice(&out.stdout).expect("JSON");
        let names: BTreeMap<&str, &str> = list(&metadata["packages"])
            .map(|package| (text(&package["id"]), text(&package["name"])))
            .collect();
        let edges = list(&metadata["resolve"]["nodes"]).map(|node| {
            let shipped = list(&node["deps"])
                .filter(|dep| list(&dep["dep_kinds"]).any(|kind| kind["kind"].is_null()))
                .map(|dep| names[text(&dep["pkg"])].to_owned());
            (names[text(&node["id"])].to_owned(), shipped.collect())
        });
        Self(edges.fold(BTreeMap::new(), merge))
    }

    fn direct(&self, name: &str) -> Vec<&str> {
        let Some(dependencies) = self.0.get(name) else {
            panic!("the workspace has no crate {name}")
        };
        dependencies.iter().map(String::as_str).collect()
    }

    fn reached(&self, name: &str) -> BTreeSet<&str> {
        let mut reached = BTreeSet::new();
        let mut next = self.direct(name);
        while let Some(dependency) = next.pop() {
            if reached.insert(dependency) {
                next.extend(self.direct(dependency));
            }
        }
        reached
    }
}

/// Two versions of a crate count as one.
fn merge(
    mut graph: BTreeMap<String, BTreeSet<String>>,
    (name, uses): (String, BTreeSet<String>),
) -> BTreeMap<String, BTreeSet<String>> {
    graph.entry(name).or_default().extend(uses);
    graph
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[test]
fn every_relative_link_in_our_pages_leads_somewhere() {
    let mut broken = Vec::new();
    for page in pages(&repository()) {
        let markdown = std::fs::read_to_string(&page).expect("a page");
        let dir = page.parent().expect("a page lies in a folder");
        for link in links(&markdown) {
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() {
                page.clone()
            } else {
                dir.join(path)
            };
            if !target.exists() {
                broken.push(format!("{}: {link} is not there", page.display()));
            } else if !anchor.is_empty() && !anchors(&target).contains(anchor) {
                broken.push(format!("{}: {link} has no such heading", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Our Markdown files.
fn pages(dir: &Path) -> Vec<PathBuf> {
    files(dir, &|path| {
        path.extension().is_some_and(|e| e == "md") && !path.ends_with(GIVEN)
    })
}

/// Our files that are wanted: built and fetched ones left out.
fn files(dir: &Path, wanted: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
        if !path.is_dir() {
            found.extend(wanted(&path).then_some(path));
        } else if !name.starts_with('.') && !["target", "node_modules", "shared"].contains(&name) {
            found.extend(files(&path, wanted));
        }
    }
    found
}

/// Where `[…](…)` leads, outside code, when that is inside the repository.
fn links(markdown: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(markdown) {
        let outside_code: String = line.split('`').step_by(2).collect();
        for part in outside_code.split("](").skip(1) {
            let link = part.split([')', ' ']).next().unwrap_or("");
            if !link.contains("://") && !link.starts_with("mailto:") {
                found.push(link.to_owned());
            }
        }
    }
    found
}

/// The lines that stand outside fenced code.
fn prose(markdown: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    markdown.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// The headings of a page as a browser's anchors.
fn anchors(page: &Path) -> BTreeSet<String> {
    let markdown = std::fs::read_to_string(page).expect("a page");
    prose(&markdown)
        .filter_map(|line| line.strip_prefix('#'))
        .map(|heading| {
            let words = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = words
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[test]
fn every_file_that_the_architecture_names_is_there() {
    let page = std::fs::read_to_string(repository().join("docs/architecture.md")).expect("a page");
    let named: Vec<&str> = page
        .lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|name| Path::new(name).extension().is_some_and(|e| e == "rs"))
        .collect();
    assert!(!named.is_empty());
    let sources = sources(&repository());
    for name in named {
        let found = sources.iter().any(|path| path.ends_with(name));
        assert!(found, "docs/architecture.md: no file is called {name}");
    }
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    files(dir, &|path| path.extension().is_some_and(|e| e == "rs"))
}

#[test]
fn links_are_found_outside_code_only() {
    let check = |markdown: &str, found: &[&str]| assert_eq!(links(markdown), found, "{markdown}");
    check(
        "see [a](a.md) and ![b](images/b.png)",
        &["a.md", "images/b.png"],
    );
    check(
        "[`x`](x.md#part) [far](https://example.org/y.md)",
        &["x.md#part"],
    );
    check("`v[0](1)` is code\n```\n[a](a.md)\n```\n", &[]);
}
