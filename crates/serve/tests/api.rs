//! The API as programs use it.

mod common;

use base64::Engine as _;
use common::client::{FORM, ended, events, form, form_of, get, id, send, submit, until};
use common::{Running, picture, picture_of, server};
use diffbir_imaging::{Format, encode_rgb};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use tempfile::TempDir;

#[test]
fn a_picture_goes_in_and_comes_out() {
    let (server, _data) = server(|_| {});
    let to = server.address;
    let answer = submit(to, &picture(), &[("samples", "2")]);
    assert_eq!(answer.status, 202);
    let id = id(&answer);
    assert_eq!(answer.header("location"), format!("/v1/restorations/{id}"));
    let job = ended(to, &id);
    assert_eq!(
        (&job["state"], &job["name"], &job["size"]),
        (&json!("done"), &json!("a.png"), &json!([4, 3]))
    );
    let results = job["results"].as_array().unwrap();
    assert_eq!(results[1]["file"], "a_restored_1.png");
    let result = get(to, results[1]["href"].as_str().unwrap());
    assert_eq!((result.status, &result.body), (200, &picture()));
    assert_eq!(result.header("content-type"), "image/png");
    assert!(result.header("content-disposition").contains("a_restored_1.png"));
    assert_eq!(get(to, &format!("/v1/restorations/{id}/stage1")).body, picture());
    assert_eq!(get(to, &format!("/v1/restorations/{id}/before")).body, picture());
    assert_eq!(get(to, &format!("/v1/restorations/{id}/result?sample=2")).status, 404);
    assert_eq!(get(to, "/v1/restorations").json()[0]["id"], id);
    assert_eq!(send(to, "DELETE", &format!("/v1/restorations/{id}"), &[], b"").status, 204);
    assert_eq!(get(to, &format!("/v1/restorations/{id}")).status, 404);
    assert_eq!(std::fs::read_dir(_data.path().join("jobs")).unwrap().count(), 0);
}

#[test]
fn events_come_in_order_and_are_taken_up_again() {
    let (server, _data) = server(|_| {});
    let path =
        format!("/v1/restorations/{}/events", id(&submit(server.address, &picture(), &[("ms", "300")])));
    let all = events(server.address, &path, 0);
    let names: Vec<&str> = all.iter().map(|(_, name, _)| name.as_str()).collect();
    for name in ["stage", "step", "preview"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert_eq!(names.last(), Some(&"done"));
    assert!(all.is_sorted_by(|a, b| a.0 < b.0), "{all:?}");
    let step = &all.iter().rfind(|(_, name, _)| name == "step").unwrap().2;
    assert_eq!((&step["done"], &step["total"]), (&json!(10), &json!(10)));
    // Who comes back gets the rest, and who was there to the end gets nothing.
    let last = all.last().unwrap().0;
    assert_eq!(events(server.address, &path, last - 1), all[all.len() - 1..]);
    assert!(events(server.address, &path, last).is_empty());
}

#[test]
fn a_picture_comes_as_json_too_and_a_small_job_is_waited_for() {
    let (server, _data) = server(|_| {});
    let image = base64::engine::general_purpose::STANDARD.encode(picture());
    let body = json!({"image": image, "name": "b.png", "ms": "10"}).to_string();
    let post = |path: &str, body: &str| {
        send(server.address, "POST", path, &[("Content-Type", "application/json")], body.as_bytes())
    };
    let answer = post("/v1/restorations?wait=30", &body);
    assert_eq!((answer.status, &answer.body), (200, &picture()));
    assert_eq!(answer.header("restoration-seed"), "0");
    assert!(answer.header("content-disposition").contains("b_restored.png"));
    // As mails break it into lines, and as browsers give files.
    let broken =
        image.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect::<Vec<_>>();
    for image in [broken.join("\r\n"), format!("data:image/png;base64,{image}")] {
        assert_eq!(post("/v1/restorations?wait=30", &json!({"image": image}).to_string()).body, picture());
    }
    // What takes longer than one waits for is answered as if one had not waited.
    let body = json!({"image": image, "ms": "60000"}).to_string();
    assert_eq!(post("/v1/restorations?wait=0", &body).status, 202);
    assert!(post("/v1/restorations?wait=soon", &body).detail().contains("wait: invalid digit"));
    assert!(post("/v1/restorations", "[]").detail().contains("no JSON object"));
    assert!(post("/v1/restorations", "{}").detail().contains("`image`"));
    assert!(post("/v1/restorations", "{\"image\": \"?\"}").detail().contains("base64"));
}

#[test]
fn the_same_request_with_a_key_is_one_job() {
    let (server, data) = server(|_| {});
    let post = |to, key: &str, options: &[(&str, &str)]| {
        let headers = [FORM, ("Idempotency-Key", key)];
        send(to, "POST", "/v1/restorations", &headers, &form("a.png", &picture(), options))
    };
    let first = post(server.address, "k", &[]);
    assert_eq!(first.status, 202);
    let again = post(server.address, "k", &[]);
    assert_eq!((again.status, id(&again)), (200, id(&first)));
    let other = post(server.address, "k", &[("ms", "1")]);
    assert_eq!(other.status, 422);
    assert!(other.detail().contains("another picture"));
    assert_ne!(id(&post(server.address, "l", &[])), id(&first));
    assert_eq!(post(server.address, "", &[]).status, 400);
    // The key is known to the next server as well.
    ended(server.address, &id(&first));
    drop(server);
    let next = Running::on(data.path(), |_| {});
    assert_eq!(id(&post(next.address, "k", &[])), id(&first));
    // A request that failed frees its key.
    assert_eq!(post(next.address, "m", &[("wrong", "1")]).status, 422);
    assert_eq!(post(next.address, "m", &[]).status, 202);
}

#[test]
fn a_mask_is_a_second_picture() {
    let (server, data) = server(|settings| settings.limits.upload_bytes = 4 * picture().len() as u64);
    let post = |to, files: &[(&str, &str, &[u8])]| {
        let headers = [FORM, ("Idempotency-Key", "k")];
        send(to, "POST", "/v1/restorations", &headers, &form_of(files, &[]))
    };
    let (image, mask) = (("image", "a.png", &picture()[..]), &picture_of(9)[..]);
    let sent = [("mask", "x/../keep.png", mask), image];
    let first = post(server.address, &sent);
    let job = ended(server.address, &id(&first));
    assert_eq!(
        (&job["mask"], &job["command"]),
        (&json!("keep.png"), &json!("diffbir restore a.png --mask=keep.png"))
    );
    assert_eq!(get(server.address, &format!("{}/result", job["href"].as_str().unwrap())).body, mask);
    let kept = data.path().join("jobs").join(job["id"].as_str().unwrap()).join("mask");
    assert_eq!(std::fs::read(kept).unwrap(), mask);
    // It belongs to what a key stands for.
    assert_eq!(id(&post(server.address, &sent)), id(&first));
    assert_eq!(post(server.address, &[image, ("mask", "keep.png", &picture_of(8))]).status, 422);
    drop(server);
    let next = Running::on(data.path(), |_| {});
    let to = next.address;
    assert_eq!(id(&post(to, &sent)), id(&first));
    // As JSON; left out where it is empty.
    let coded = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let json = |mask: &str| {
        let body = json!({"image": coded(&picture()), "mask": mask}).to_string();
        send(to, "POST", "/v1/restorations?wait=30", &[("Content-Type", "application/json")], body.as_bytes())
    };
    assert_eq!((json(&coded(mask)).body, json("").body), (mask.to_vec(), picture()));
    let posted =
        |files: &[(&str, &str, &[u8])]| send(to, "POST", "/v1/restorations", &[FORM], &form_of(files, &[]));
    assert_eq!(posted(&[image, ("mask", "", b"")]).status, 202);
    let wrong = posted(&[image, ("mask", "m.png", b"/etc/passwd")]);
    assert_eq!(wrong.status, 415);
    assert!(wrong.detail().starts_with("m.png: is not a picture"), "{}", wrong.detail());
    assert_eq!(posted(&[image, ("mask", "", mask), ("mask", "", mask)]).status, 400);
    assert_eq!(posted(&[("mask", "", mask)]).status, 400);
    assert!(json("/etc/passwd").detail().starts_with("`mask` is no "));
}

#[test]
fn a_mask_counts_where_bytes_and_pixels_do() {
    let (server, data) = server(|settings| {
        settings.limits.upload_bytes = 2 * picture().len() as u64 - 1;
        settings.limits.pixels = 12;
    });
    let posted = |mask: &[u8]| {
        let files = [("image", "a.png", &picture()[..]), ("mask", "", mask)];
        send(server.address, "POST", "/v1/restorations", &[FORM], &form_of(&files, &[]))
    };
    assert!(posted(&picture()).detail().contains("its mask included"));
    let larger = encode_rgb((13, 1), vec![0; 39], Format::Png, None).unwrap();
    let answer = posted(&larger);
    assert!(
        answer.status == 413 && answer.detail().starts_with("the mask has 0.000013 megapixels"),
        "{}",
        answer.text()
    );
    assert_eq!(std::fs::read_dir(data.path().join("jobs")).unwrap().count(), 0);
}

#[test]
fn where_results_differ_and_contradict_the_photograph_is_told() {
    let (server, _data) = server(|_| {});
    let to = server.address;
    let job = ended(to, &id(&submit(to, &picture(), &[("samples", "2"), ("stability", "1"), ("harm", "1")])));
    assert_eq!(job["results"][1]["harm"], json!({"parts": 6, "harmed": 2, "kept": false}));
    assert_eq!(job["stability"]["mean"], 0.25);
    let map = get(to, job["stability"]["href"].as_str().unwrap());
    assert_eq!((&map.body, map.header("content-type").as_str()), (&picture_of(7), "image/png"));
    assert!(map.header("content-disposition").contains("a_restored_stability.png"));
    let plain = ended(to, &id(&submit(to, &picture(), &[])));
    assert!(plain.get("stability").is_none() && plain["results"][0].get("harm").is_none(), "{plain}");
    assert_eq!(get(to, &format!("{}/stability", plain["href"].as_str().unwrap())).status, 404);
    let waits = id(&submit(to, &picture(), &[("ms", "60000"), ("stability", "1")]));
    assert_eq!(get(to, &format!("/v1/restorations/{waits}/stability")).status, 409);
}

#[test]
fn who_waits_for_what_is_removed_hears_what_events_say() {
    let (server, _data) = server(|_| {});
    let to = server.address;
    let body = form("a.png", &picture(), &[("ms", "60000")]);
    let waits = std::thread::spawn(move || send(to, "POST", "/v1/restorations?wait=60", &[FORM], &body));
    let job = until(|| get(to, "/v1/restorations").json()[0]["id"].as_str().map(String::from));
    let path = format!("/v1/restorations/{job}");
    until(|| (get(to, &path).json()["state"] == "running").then_some(()));
    let mut follows = TcpStream::connect(to).unwrap();
    write!(follows, "GET {path}/events HTTP/1.0\r\nHost: {to}\r\n\r\n").unwrap();
    let mut lines = BufReader::new(follows).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("event:")));
    assert_eq!(send(to, "DELETE", &path, &[], b"").status, 204);
    let told: Value = serde_json::from_str(
        lines.filter(|line| !line.is_empty()).last().unwrap().strip_prefix("data: ").unwrap(),
    )
    .unwrap();
    assert_eq!(told["error"], waits.join().unwrap().json());
    assert_eq!(told["error"]["status"], 410);
}

#[test]
fn jobs_wait_in_line_and_can_be_taken_out_of_it() {
    let (server, data) = server(|settings| settings.limits.queue = 2);
    let to = server.address;
    let (key, keyed) = (("Idempotency-Key", "k"), form("a.png", &picture(), &[("ms", "60000")]));
    let running = id(&send(to, "POST", "/v1/restorations", &[FORM, key], &keyed));
    until(|| (get(to, &format!("/v1/restorations/{running}")).json()["state"] == "running").then_some(()));
    let second = id(&submit(to, &picture(), &[("ms", "60000")]));
    let third = id(&submit(to, &picture(), &[]));
    assert_eq!(get(to, &format!("/v1/restorations/{third}")).json()["position"], 2);
    assert_eq!(get(to, &format!("/v1/restorations/{third}/result")).status, 409, "not made yet");
    let refused = submit(to, &picture(), &[]);
    assert_eq!(refused.status, 429);
    let known = send(to, "POST", "/v1/restorations", &[FORM, key], &keyed);
    assert_eq!((known.status, id(&known)), (200, running.clone()), "what is there needs no room");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() > 0);
    assert_eq!(get(to, "/readyz").status, 429);
    assert_eq!(get(to, "/healthz").status, 200);
    let delete = |id: &str| send(to, "DELETE", &format!("/v1/restorations/{id}"), &[], b"").status;
    // One that waits, then the one that is being restored: the last of them can begin.
    assert_eq!((delete(&second), delete(&running)), (204, 204));
    assert_eq!(ended(to, &third)["state"], "done");
    assert_eq!(delete(&running), 404);
    until(|| (std::fs::read_dir(data.path().join("jobs")).unwrap().count() == 1).then_some(()));
    let metrics = get(to, "/metrics").text();
    assert!(metrics.contains("diffbir_jobs_ended_total{end=\"cancelled\"} 2"), "{metrics}");
    assert!(metrics.contains("diffbir_jobs_refused_total 1"), "{metrics}");
}

#[test]
fn what_fails_is_told_without_what_is_nobodys_business_and_the_next_job_runs() {
    let (server, _data) = server(|_| {});
    let to = server.address;
    for option in ["panic", "fail"] {
        let job = ended(to, &id(&submit(to, &picture(), &[(option, "1")])));
        assert_eq!(job["state"], "failed");
        assert_eq!(job["error"]["status"], 500);
        assert!(!job.to_string().contains("secret"), "{job}");
    }
    let told =
        events(to, &format!("/v1/restorations/{}/events", id(&submit(to, &picture(), &[("fail", "1")]))), 0);
    assert_eq!(told.last().unwrap().1, "error");
    assert_eq!(ended(to, &id(&submit(to, &picture(), &[])))["state"], "done");
}

#[test]
fn a_job_has_its_time() {
    let (server, _data) = server(|settings| settings.limits.job = std::time::Duration::from_millis(200));
    let job = ended(server.address, &id(&submit(server.address, &picture(), &[("ms", "60000")])));
    assert!(job["error"]["detail"].as_str().unwrap().contains("longer than"), "{job}");
}

#[test]
fn old_jobs_are_swept() {
    let (server, data) = server(|settings| settings.limits.kept_jobs = 2);
    let ids: Vec<String> = (0..4)
        .map(|_| {
            let id = id(&submit(server.address, &picture(), &[]));
            ended(server.address, &id);
            id
        })
        .collect();
    until(|| (std::fs::read_dir(data.path().join("jobs")).unwrap().count() == 2).then_some(()));
    let status = |id: &String| get(server.address, &format!("/v1/restorations/{id}")).status;
    assert_eq!(ids.iter().map(status).collect::<Vec<_>>(), [404, 404, 200, 200]);
}

#[test]
fn a_server_that_ends_leaves_its_jobs_to_the_next() {
    let (server, data) = server(|_| {});
    let running = id(&submit(server.address, &picture(), &[("ms", "500")]));
    let waiting = id(&submit(server.address, &picture(), &[]));
    until(|| {
        (get(server.address, &format!("/v1/restorations/{running}")).json()["state"] == "running")
            .then_some(())
    });
    drop(server);
    let next = Running::on(data.path(), |_| {});
    for id in [&running, &waiting] {
        assert_eq!(ended(next.address, id)["state"], "done");
        let told = events(next.address, &format!("/v1/restorations/{id}/events"), 0);
        assert_eq!(told.last().unwrap().1, "done");
    }
    drop(next);
    // What was done is there as it was.
    let last = Running::on(data.path(), |_| {});
    assert_eq!(get(last.address, &format!("/v1/restorations/{waiting}/result")).body, picture());
    let told = events(last.address, &format!("/v1/restorations/{waiting}/events"), 0);
    assert_eq!(told.len(), 1);
}

#[test]
fn models_are_pulled_with_events_one_at_a_time() {
    let (server, _data) = server(|_| {});
    let to = server.address;
    let post = |model: &str| send(to, "POST", &format!("/v1/models/{model}/pull"), &[], b"");
    assert_eq!(get(to, "/v1/models").json().as_array().unwrap().len(), 3);
    assert_eq!((post("built-in").status, post("no").status), (404, 404));
    assert_eq!(get(to, "/v1/models/large/pull/events").status, 404);
    let begun = post("large");
    assert_eq!(begun.status, 202);
    let told = events(to, &begun.header("location"), 0);
    assert_eq!(told.last().unwrap().2, json!({"model": "large"}));
    assert_eq!(post("slow").status, 202);
    assert_eq!((post("slow").status, post("large").status), (202, 429));
    assert_eq!(send(to, "DELETE", "/v1/models/slow/pull", &[], b"").status, 204);
    let told = events(to, "/v1/models/slow/pull/events", 0);
    assert_eq!(told.last().unwrap().2["error"]["detail"], "stopped");
}

#[test]
fn the_description_is_openapi_and_names_every_route() {
    let (server, _data) = server(|_| {});
    let description = get(server.address, "/openapi.json").json();
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1"));
    for path in ["/v1/restorations", "/v1/restorations/{id}/events", "/v1/models/{id}/pull", "/healthz"] {
        assert!(description["paths"][path].is_object(), "{path}");
    }
    // Every answer is described, and problems are told as such.
    let pull = &description["paths"]["/v1/models/{id}/pull"]["post"]["responses"];
    assert!(pull["404"]["content"]["application/problem+json"].is_object(), "{pull}");
    let methods =
        description["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap());
    let mut names: Vec<_> =
        methods.clone().map(|(_, method)| method["operationId"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|two| two[0] != two[1]), "{names:?}");
    let answers = methods.flat_map(|(_, method)| method["responses"].as_object().unwrap());
    for (status, answer) in answers {
        assert!(answer["description"].is_string(), "{status}: {answer}");
        assert!(answer.get("content").is_none_or(Value::is_object), "{status}: {answer}");
        let content = answer["content"].as_object().into_iter().flat_map(|content| content.keys());
        let expected = if status.starts_with('4') { "application/problem+json" } else { "" };
        assert!(
            content.into_iter().all(|kind| expected.is_empty() || kind == expected),
            "{status}: {answer}"
        );
    }
    // Every reference leads somewhere.
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| match (name.as_str(), value) {
                ("$ref", Value::String(place)) => found.push(place),
                _ => references(value, found),
            }),
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    references(&description, &mut found);
    assert!(!found.is_empty());
    for place in found {
        assert!(description.pointer(&place[1..]).is_some(), "{place}");
    }
}

#[test]
fn no_two_servers_share_a_folder() {
    let data = TempDir::new().unwrap();
    let _one = Running::on(data.path(), |_| {});
    let refused = std::panic::catch_unwind(|| Running::on(data.path(), |_| {}));
    assert!(refused.is_err());
}
