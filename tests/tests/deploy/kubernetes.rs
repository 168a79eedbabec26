//! The manifests fit together and fit the daemons: what a cluster would only say when it is too late.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{flags, text};

const BASE: &str = "kubernetes/base";

/// Secrets that the operator makes, with the keys that the README says they have.
const SECRETS: &[(&str, &[&str])] = &[
    ("entrenar-tls", &["ca.pem", "server.pem", "server.key"]),
    ("entrenar-tokens", &["agents", "people"]),
];

#[test]
fn every_manifest_is_part_of_the_base() {
    let listed: BTreeSet<String> = list(&kustomization()["resources"]).map(string).collect();
    let generated = list(&kustomization()["configMapGenerator"])
        .flat_map(|map| list(&map["files"]).map(string).collect::<Vec<_>>())
        .collect();
    let there: BTreeSet<String> = std::fs::read_dir(crate::shipped(BASE))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "kustomization.yaml")
        .collect();
    assert_eq!(
        listed.union(&generated).cloned().collect::<BTreeSet<_>>(),
        there
    );
}

#[test]
fn containers_mount_volumes_that_are_there_and_get_flags_that_exist() {
    for workload in workloads() {
        let pod = &workload["spec"]["template"]["spec"];
        let volumes: BTreeSet<String> = list(&pod["volumes"]).map(|v| string(&v["name"])).collect();
        let mut used = BTreeSet::new();
        for container in containers(pod) {
            for mount in list(&container["volumeMounts"]) {
                used.insert(string(&mount["name"]));
            }
            if list(&container["args"]).next().is_some() {
                let args = list(&container["args"]).map(string);
                flags::check_line(&name(&workload), args);
            }
        }
        assert_eq!(used, volumes, "{}", name(&workload));
    }
}

#[test]
fn every_file_that_a_flag_names_is_mounted() {
    let configs = ["tokens.yaml", "receivers.yaml"];
    for workload in workloads() {
        let pod = &workload["spec"]["template"]["spec"];
        let files = mounted(pod);
        let container = &pod["containers"][0];
        let args = list(&container["args"]).map(string);
        for arg in args.filter(|arg| arg.contains("=/etc/")) {
            let file = arg.split_once('=').unwrap().1.to_owned();
            assert!(
                files.contains(&file),
                "{}: {arg} is not mounted",
                name(&workload)
            );
        }
        if name(&workload) == "entrenar-aggregator" {
            for config in configs {
                for file in strings_under(&yaml(&format!("{BASE}/{config}"))) {
                    let named = file.starts_with("/etc/");
                    assert!(
                        !named || files.contains(&file),
                        "{config}: {file} is not mounted"
                    );
                }
            }
        }
    }
}

#[test]
fn secrets_and_config_maps_are_made_here_or_by_the_operator() {
    let generated: Vec<String> = list(&kustomization()["configMapGenerator"])
        .map(|map| string(&map["name"]))
        .collect();
    for workload in workloads() {
        for volume in list(&workload["spec"]["template"]["spec"]["volumes"]) {
            if let Some(map) = volume["configMap"]["name"].as_str() {
                assert!(
                    generated.iter().any(|name| name == map),
                    "nobody makes the config map {map}"
                );
            }
            if let Some(secret) = volume["secret"]["secretName"].as_str() {
                let optional = volume["secret"]["optional"] == true;
                let known = SECRETS.iter().find(|(name, _)| *name == secret);
                assert!(
                    optional || known.is_some(),
                    "nobody makes the secret {secret}"
                );
                for item in list(&volume["secret"]["items"]) {
                    let key = string(&item["key"]);
                    assert!(
                        known.unwrap().1.contains(&key.as_str()),
                        "{secret} has no {key}"
                    );
                }
            }
        }
    }
}

#[test]
fn selectors_match_probes_reach_ports_and_the_service_reaches_the_aggregator() {
    for workload in workloads() {
        let pod = &workload["spec"]["template"];
        let wanted = &workload["spec"]["selector"]["matchLabels"];
        assert_eq!(wanted, &pod["metadata"]["labels"], "{}", name(&workload));
        for container in list(&pod["spec"]["containers"]) {
            let ports: Vec<_> = list(&container["ports"]).map(|p| &p["name"]).collect();
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                let port = &container[probe]["httpGet"]["port"];
                assert!(
                    port.is_null() || ports.contains(&port),
                    "{}: {probe}",
                    name(&workload)
                );
            }
        }
    }
    let aggregator = workloads()
        .into_iter()
        .find(|w| name(w) == "entrenar-aggregator")
        .unwrap();
    let pod = &aggregator["spec"]["template"];
    let service = manifests()
        .into_iter()
        .find(|m| m["kind"] == "Service")
        .unwrap();
    assert_eq!(service["spec"]["selector"], pod["metadata"]["labels"]);
    for port in list(&service["spec"]["ports"]) {
        let ports: Vec<_> = list(&pod["spec"]["containers"][0]["ports"])
            .map(|p| &p["name"])
            .collect();
        assert!(ports.contains(&&port["targetPort"]));
    }
}

#[test]
fn what_runs_is_unprivileged_and_its_root_is_read_only() {
    for workload in workloads() {
        let pod = &workload["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["automountServiceAccountToken"], false);
        // Kubernetes would set ENTRENAR_AGGREGATOR_… for the service, which our flags' variables look like.
        assert_eq!(pod["enableServiceLinks"], false);
        for container in containers(pod) {
            let context = &container["securityContext"];
            assert_eq!(context["readOnlyRootFilesystem"], true);
            assert_eq!(context["allowPrivilegeEscalation"], false);
            assert_eq!(context["capabilities"]["drop"][0], "ALL");
        }
    }
}

#[test]
fn agents_reach_the_aggregator_by_a_name_on_the_certificate() {
    let agent = workloads()
        .into_iter()
        .find(|w| name(w) == "entrenar-agent")
        .unwrap();
    let args = &agent["spec"]["template"]["spec"]["containers"][0]["args"];
    // `certs init --host entrenar-aggregator.entrenar.svc` in the README.
    let url = "--aggregator=https://entrenar-aggregator.entrenar.svc:8471";
    assert!(list(args).any(|arg| arg == url));
}

/// Every file that a pod's only container finds below its mounts, as far as the manifests say.
fn mounted(pod: &Value) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    for mount in list(&pod["containers"][0]["volumeMounts"]) {
        let volume = list(&pod["volumes"])
            .find(|v| v["name"] == mount["name"])
            .unwrap();
        let at = string(&mount["mountPath"]);
        let secret = volume["secret"]["secretName"].as_str().unwrap_or("");
        let items: Vec<String> = list(&volume["secret"]["items"])
            .map(|i| string(&i["path"]))
            .collect();
        let whole = SECRETS
            .iter()
            .filter(|(name, _)| *name == secret && items.is_empty());
        let map = volume["configMap"]["name"].as_str().unwrap_or("");
        let generators = list(&kustomization()["configMapGenerator"])
            .cloned()
            .collect::<Vec<_>>();
        let of_map = generators
            .iter()
            .filter(|m| m["name"] == map)
            .flat_map(|m| list(&m["files"]).map(string));
        let names = items
            .clone()
            .into_iter()
            .chain(whole.flat_map(|(_, keys)| keys.iter().map(|&k| k.to_owned())));
        files.extend(names.chain(of_map).map(|name| format!("{at}/{name}")));
    }
    files
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    list(&pod["initContainers"]).chain(list(&pod["containers"]))
}

fn workloads() -> Vec<Value> {
    let kinds = ["Deployment", "DaemonSet"];
    manifests()
        .into_iter()
        .filter(|m| kinds.iter().any(|kind| m["kind"] == *kind))
        .collect()
}

fn manifests() -> Vec<Value> {
    let files: Vec<String> = list(&kustomization()["resources"]).map(string).collect();
    files
        .iter()
        .flat_map(|file| {
            let text = text(&format!("{BASE}/{file}"));
            let documents: Vec<Value> = text
                .split("\n---\n")
                .map(|d| serde_saphyr::from_str(d).unwrap())
                .collect();
            documents
        })
        .collect()
}

fn kustomization() -> Value {
    yaml(&format!("{BASE}/kustomization.yaml"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&text(path)).unwrap_or_else(|e| panic!("deploy/{path}: {e}"))
}

fn name(manifest: &Value) -> String {
    string(&manifest["metadata"]["name"])
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn strings_under(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(strings_under).collect(),
        Value::Object(fields) => fields.values().flat_map(strings_under).collect(),
        _ => Vec::new(),
    }
}
