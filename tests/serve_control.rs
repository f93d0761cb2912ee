//! The control plane of the real program over real sockets, with raw HTTP: health, metrics, the API, and what it refuses.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::Command;

use ringroom::control::{OPENAPI, ROUTES};
use serde_json::{Value, json};
use support::http::{self, Reply, call, dial, get, read_reply, total};
use support::{Client, Server, assert_bye, wait_until};

fn start(shards: usize, config: &str) -> Server {
    let shards = shards.to_string();
    Server::start_with(&["--shards", &shards, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], config, "true")
}

fn post(address: SocketAddr, path: &str, body: &Value) -> Reply {
    call(address, &format!("POST {path}"), &["Content-Type: application/json"], &body.to_string())
}

#[test]
fn a_live_and_ready_server_says_so_and_what_it_is() {
    let server = start(2, "");
    assert_eq!(get(server.admin(), "/healthz").json()["status"], "ok");
    assert_eq!(get(server.admin(), "/readyz").json()["status"], "ready");
    let info = get(server.admin(), "/v1/info").json();
    assert_eq!((&info["shards"], &info["auth"], &info["draining"]), (&json!(2), &json!("open"), &json!(false)));
    assert_eq!(info["listen"], json!([server.address().to_string()]));
    get(server.admin(), "/nothing").assert_problem(404, "not_found");
    call(server.admin(), "PUT /v1/rooms", &[], "").assert_problem(405, "method_not_allowed");
    server.stop().assert_clean();
}

#[test]
fn a_server_without_the_flag_has_no_control_plane() {
    let server = Server::start(1, "");
    assert_eq!(server.admin, None);
    server.stop().assert_clean();
}

#[test]
fn metrics_count_what_happened_on_every_shard() {
    let server = start(2, "");
    let mut clients: Vec<Client> = (0..8).map(|n| Client::member(server.address(), &format!("user{n}"), "lobby")).collect();
    for n in 0..10 {
        clients[0].send("lobby", &n.to_string());
    }
    for client in &mut clients {
        for _ in 0..10 {
            client.find("message");
        }
    }
    wait_until("every delivery is counted", || total(&get(server.admin(), "/metrics").body, "ringroom_deliveries_total", "") >= 80.0);
    wait_until("every message is counted", || total(&get(server.admin(), "/metrics").body, "ringroom_messages_total", "") == 10.0);
    wait_until("every session is counted", || total(&get(server.admin(), "/metrics").body, "ringroom_sessions", "") == 8.0);
    let page = get(server.admin(), "/metrics").body;
    assert_eq!(total(&page, "ringroom_messages_total", ""), 10.0);
    assert_eq!(total(&page, "ringroom_logins_total", ""), 8.0);
    assert_eq!(total(&page, "ringroom_insecure_open", ""), 0.0);
    assert!(total(&page, "ringroom_process_resident_bytes", "") > 1e6);
    for stage in ["home", "queue", "submit"] {
        assert!(total(&page, "ringroom_stage_seconds_count", &format!("stage=\"{stage}\"")) >= 1.0, "{stage}");
    }
    for shard in ["shard=\"0\"", "shard=\"1\""] {
        assert!(total(&page, "ringroom_turns_total", shard) > 0.0 && total(&page, "ringroom_ring_enters_total", shard) > 0.0);
        assert!(total(&page, "ringroom_turn_seconds_count", shard) > 0.0 && total(&page, "ringroom_ring_buffers_left", shard) > 0.0);
    }
    server.stop().assert_clean();
}

#[test]
fn a_server_that_anybody_can_be_anybody_on_says_so() {
    let args = ["--shards", "1", "--listen", "0.0.0.0:0", "--admin", "127.0.0.1:0", "--insecure-open"];
    let server = Server::start_with(&args, "", "true");
    assert_eq!(total(&get(server.admin(), "/metrics").body, "ringroom_insecure_open", ""), 1.0);
    server.stop().assert_clean();
}

#[test]
fn names_and_bodies_never_reach_the_metrics() {
    let server = start(1, "");
    let mut client = Client::member(server.address(), "plantedUser", "plantedRoom");
    client.send("plantedRoom", "\"plantedSecret\"");
    client.find("message");
    wait_until("the message is counted", || total(&get(server.admin(), "/metrics").body, "ringroom_messages_total", "") == 1.0);
    let page = get(server.admin(), "/metrics").body;
    assert!(!page.contains("planted"), "{page}");
    let top = get(server.admin(), "/v1/top").json();
    assert_eq!(top["shards"][0]["busy_rooms"][0]["room"], "plantedRoom");
    assert_eq!(top["shards"][0]["loud_senders"][0]["user"], "plantedUser");
    server.stop().assert_clean();
}

#[test]
fn fifty_scrapes_at_once_are_all_answered() {
    let server = start(2, "");
    let admin = server.admin();
    let threads: Vec<_> = (0..50).map(|_| std::thread::spawn(move || get(admin, "/metrics"))).collect();
    for thread in threads {
        let reply = thread.join().unwrap();
        assert_eq!(reply.code, 200);
        assert!(reply.body.ends_with('\n') && reply.body.contains("ringroom_shards 2\n"));
    }
    server.stop().assert_clean();
}

#[test]
fn a_kicked_session_is_told_and_gone_and_only_it() {
    let server = start(2, "");
    let mut client = Client::connect(server.address());
    client.say(&support::hello("alice"));
    let id = client.expect("welcome")["session"].as_str().unwrap().to_owned();
    let mut other = Client::member(server.address(), "alice", "lobby");
    let sessions = get(server.admin(), "/v1/sessions?user=alice").json();
    let ids: Vec<&Value> = sessions["sessions"].as_array().unwrap().iter().map(|s| &s["session"]).collect();
    assert!(ids.len() == 2 && ids.contains(&&json!(id)), "{sessions}");
    assert!(sessions["sessions"].as_array().unwrap().iter().any(|s| s["rooms"] == json!(["lobby"])), "{sessions}");
    let kicked = call(server.admin(), &format!("DELETE /v1/sessions/{id}"), &[], "");
    assert_eq!((kicked.code, kicked.json()), (200, json!({"kicked": id})));
    assert_bye(&client.bye(), 410, "kicked");
    call(server.admin(), &format!("DELETE /v1/sessions/{id}"), &[], "").assert_problem(404, "not_found");
    call(server.admin(), "DELETE /v1/sessions/zzz", &[], "").assert_problem(400, "bad_field");
    assert!(other.sync().is_empty(), "the other session goes on");
    assert_eq!(get(server.admin(), "/v1/sessions?user=nobody").json(), json!({"sessions": []}));
    get(server.admin(), "/v1/sessions").assert_problem(400, "bad_field");
    get(server.admin(), "/v1/sessions?usr=alice").assert_problem(400, "bad_field");
    let ended = server.stop();
    assert_eq!(ended.ends("kicked"), 1);
    ended.assert_clean();
}

#[test]
fn a_published_message_is_delivered_once_with_the_promise_of_a_send() {
    let server = start(2, "");
    let mut members: Vec<Client> = ["ann", "ben", "cid"].map(|user| Client::member(server.address(), user, "lobby")).into();
    let message = json!({"room": "lobby", "from": "bot", "body": {"n": 1}, "key": "k1"});
    let sent = post(server.admin(), "/v1/publish", &message);
    assert_eq!((sent.code, &sent.json()["room"]), (200, &json!("lobby")), "{sent:?}");
    let again = post(server.admin(), "/v1/publish", &message).json();
    assert_eq!((&again["at"], &again["duplicate"]), (&sent.json()["at"], &json!(true)));
    for member in &mut members {
        let heard: Vec<Value> = member.sync();
        assert_eq!(heard.len(), 1, "once: {heard:?}");
        assert_eq!((&heard[0]["from"], &heard[0]["body"], &heard[0]["at"]), (&json!("bot"), &json!({"n": 1}), &sent.json()["at"]));
    }
    let batch: Vec<Value> = (0..20).map(|n| json!({"room": "lobby", "from": "bot", "body": n})).chain([json!({"room": "lobby"})]).collect();
    let results = post(server.admin(), "/v1/publish", &json!({"messages": batch})).json();
    let results = results["results"].as_array().unwrap();
    assert_eq!((results.len(), &results[20]["error"]["reason"]), (21, &json!("bad_field")));
    let heard: Vec<Value> = members[0].sync().iter().map(|m| m["body"].clone()).collect();
    assert_eq!(heard, (0..20).map(Value::from).collect::<Vec<_>>());
    post(server.admin(), "/v1/publish", &json!({"room": "lobby", "body": 1})).assert_problem(400, "bad_field");
    call(server.admin(), "POST /v1/publish", &[], "{").assert_problem(400, "malformed");
    post(server.admin(), "/v1/publish", &json!({"room": "lobby", "from": "bot", "body": "x".repeat(61_440)}))
        .assert_problem(413, "body_too_large");
    server.stop().assert_clean();
}

#[test]
fn rooms_are_listed_whole_in_pages_and_shown_one_by_one() {
    let server = start(3, "");
    let mut client = Client::login(server.address(), "ann");
    for n in 0..25 {
        client.join(&format!("room{n}"));
    }
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = get(server.admin(), &format!("/v1/rooms?limit=4{after}")).json();
        let rooms = page["rooms"].as_array().unwrap();
        assert!(rooms.len() <= 4);
        seen.extend(rooms.iter().map(|room| room["room"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    seen.sort();
    let mut expected: Vec<String> = (0..25).map(|n| format!("room{n}")).collect();
    expected.sort();
    assert_eq!(seen, expected);
    let room = get(server.admin(), "/v1/rooms/room7").json();
    assert_eq!((&room["members"], &room["users"], &room["truncated"]), (&json!(1), &json!(["ann"]), &json!(false)));
    get(server.admin(), "/v1/rooms/absent").assert_problem(404, "not_found");
    get(server.admin(), "/v1/rooms/a%20b").assert_problem(400, "bad_field");
    for bad in ["limit=0", "limit=1001", "limit=x", "after=9.0", "after=x", "lmit=1"] {
        get(server.admin(), &format!("/v1/rooms?{bad}")).assert_problem(400, "bad_field");
    }
    server.stop().assert_clean();
}

#[test]
fn a_reader_that_stops_is_named_first_with_what_waits_for_it() {
    let server = start(1, "[queues]\nslow_reader = \"close\"\n");
    let _stopped = {
        let mut client = Client::connect_narrow(server.address(), 4_096);
        client.say(&support::hello("sleepy"));
        client.expect("welcome");
        client.join("lobby");
        client
    };
    let mut writer = Client::member(server.address(), "writer", "lobby");
    let body = format!("\"{}\"", "x".repeat(8_000));
    for _ in 0..60 {
        writer.send("lobby", &body);
        writer.find("message");
    }
    wait_until("the stopped reader is named", || {
        let top = get(server.admin(), "/v1/top?limit=3").json();
        let slow = &top["shards"][0]["slow_readers"];
        slow[0]["user"] == "sleepy" && slow[0]["queued_bytes"].as_u64() > Some(8_000)
    });
    wait_until("the peak is published", || total(&get(server.admin(), "/metrics").body, "ringroom_queue_bytes_high", "") > 8_000.0);
    server.stop().assert_clean();
}

#[test]
fn a_drain_asked_for_here_is_a_drain_and_shows_in_readiness() {
    let server = start(1, "");
    let stream = dial(server.admin());
    let mut client = Client::login(server.address(), "ann");
    let reply = post(server.admin(), "/v1/drain", &json!({}));
    assert_eq!((reply.code, reply.json()), (202, json!({"draining": true})));
    drop(stream);
    assert_bye(&client.bye(), 503, "draining");
    server.ended().assert_clean();
}

#[test]
fn readiness_is_lost_while_a_drain_waits_for_a_client() {
    let server = start(1, "[limits]\ndrain_ms = 3_000\n");
    // It neither reads nor goes: its queue keeps the drain waiting for a while.
    let mut stopped = Client::connect_narrow(server.address(), 4_096);
    stopped.say(&support::hello("sleepy"));
    stopped.expect("welcome");
    stopped.join("lobby");
    let mut writer = Client::member(server.address(), "writer", "lobby");
    let body = format!("\"{}\"", "x".repeat(8_000));
    for _ in 0..40 {
        writer.send("lobby", &body);
        writer.find("message");
    }
    let admin = server.admin();
    assert_eq!(get(admin, "/readyz").code, 200);
    server.signal("-TERM");
    wait_until("readiness is lost", || match std::net::TcpStream::connect(admin) {
        Ok(mut stream) => {
            stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
            let _ = stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            read_reply(&mut stream).is_some_and(|reply| reply.code == 503 && reply.json()["reason"] == "draining")
        }
        Err(why) => panic!("gone before it was seen to be draining: {why}"),
    });
    drop((stopped, writer));
    server.ended();
}

#[test]
fn with_a_token_nothing_opens_without_it() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "correct-horse-battery").unwrap();
    let config = format!("[admin]\nlisten = [\"0.0.0.0:0\"]\ntoken_file = \"{}\"\n", file.path().display());
    let server = Server::start_with(&["--shards", "1", "--listen", "127.0.0.1:0"], &config, "true");
    let admin = SocketAddr::from(([127, 0, 0, 1], server.admin().port()));
    for path in ["/metrics", "/v1/info", "/v1/top", "/v1/openapi.json", "/nothing"] {
        get(admin, path).assert_problem(401, "bad_token");
        call(admin, &format!("GET {path}"), &["Authorization: Bearer wrong-horse-battery"], "").assert_problem(401, "bad_token");
    }
    call(admin, "POST /v1/drain", &["Authorization: Basic correct-horse-battery"], "").assert_problem(401, "bad_token");
    assert_eq!(call(admin, "GET /v1/info", &["Authorization: Bearer correct-horse-battery"], "").code, 200);
    assert_eq!((get(admin, "/healthz").code, get(admin, "/readyz").code, get(admin, "/").code), (200, 200, 200));
    // Another name for this host is fine where a token is shown.
    let headers = ["Host: chat.example.org", "Authorization: Bearer correct-horse-battery"];
    assert_eq!(call(admin, "GET /metrics", &headers, "").code, 200);
    server.stop().assert_clean();
}

#[test]
fn without_a_token_a_web_page_can_not_reach_through_a_browser() {
    let server = start(1, "");
    call(server.admin(), "GET /v1/info", &["Host: evil.example"], "").assert_problem(403, "forbidden");
    call(server.admin(), "POST /v1/drain", &["Origin: http://evil.example"], "").assert_problem(403, "forbidden");
    assert_eq!(get(server.admin(), "/readyz").code, 200);
    server.stop().assert_clean();
}

/// What a fresh session is told about its rate.
fn announced(server: &Server, user: &str) -> Value {
    let mut client = Client::connect(server.address());
    client.say(&support::hello(user));
    client.expect("welcome")["limits"]["requests_per_s"].clone()
}

#[test]
fn a_hangup_takes_new_limits_and_token_and_a_bad_file_changes_nothing() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"correct-horse-battery").unwrap();
    let config = |rate: u32, more: &str| {
        let token = file.path().display();
        format!("[limits]\nrequests_per_s = {rate}\n[admin]\ntoken_file = \"{token}\"\n[log]\nlevel = \"info\"\n{more}")
    };
    let server = start(2, &config(50, ""));
    assert_eq!(announced(&server, "ann"), 50);
    std::fs::write(server.config_path(), config(70, "[queues]\nmesh_depth = 64\n")).unwrap();
    std::fs::write(file.path(), "another-horse-battery").unwrap();
    server.signal("-HUP");
    wait_until("the new rate counts", || announced(&server, "ben") == 70);
    let code = |token: &str| call(server.admin(), "GET /v1/info", &[&format!("Authorization: Bearer {token}")], "").code;
    assert_eq!((code("another-horse-battery"), code("correct-horse-battery")), (200, 401));
    std::fs::write(file.path(), "short").unwrap();
    for bad in [config(90, ""), config(0, ""), "[limts]\n".to_owned()] {
        std::fs::write(server.config_path(), bad).unwrap();
        server.signal("-HUP");
        // Signals of one kind may melt into one, so each has its time.
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert_eq!(announced(&server, "cid"), 70);
    }
    std::fs::write(file.path(), "another-horse-battery").unwrap();
    std::fs::write(server.config_path(), config(80, "")).unwrap();
    server.signal("-HUP");
    wait_until("a good file counts again", || announced(&server, "dora") == 80);
    let ended = server.stop();
    assert!(ended.log.contains("changed: limits.requests_per_s; these need a restart: queues.mesh_depth"), "{}", ended.log);
    assert!(ended.log.contains("the old settings and the old keys stay in force"), "{}", ended.log);
    ended.assert_clean();
}

#[test]
fn a_hangup_changes_how_much_is_logged() {
    let server = start(1, "[log]\nlevel = \"warn\"\n");
    std::fs::write(server.config_path(), "[log]\nlevel = \"info\"\n[limits]\nrequests_per_s = 61\n").unwrap();
    server.signal("-HUP");
    wait_until("it was read", || announced(&server, "ann") == 61);
    let ended = server.stop();
    assert!(ended.log.contains("INFO") && ended.log.contains("draining"), "{}", ended.log);
}

#[track_caller]
fn refused(args: &[&str], config: &str, code: i32, words: &str) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(config.as_bytes()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringroom"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--shards", "1", "--config"]).arg(file.path()).args(args);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.lines().count() == 1 && said.contains(words), "{said}");
}

#[test]
fn a_control_plane_that_can_not_be_is_refused_in_one_line() {
    refused(&["--admin", "0.0.0.0:0"], "", 64, "is not loopback");
}

#[test]
fn a_bad_token_file_is_refused_in_one_line() {
    refused(&["--admin", "127.0.0.1:0"], "[admin]\ntoken_file = \"/nonexistent/token\"\n", 66, "can't read admin.token_file");
    let mut short = tempfile::NamedTempFile::new().unwrap();
    short.write_all(b"short").unwrap();
    let config = format!("[admin]\ntoken_file = \"{}\"\n", short.path().display());
    refused(&["--admin", "0.0.0.0:0"], &config, 64, "needs 16 to");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    refused(&["--admin", &taken.local_addr().unwrap().to_string()], "", 69, "can't listen on");
}

#[test]
fn what_is_too_large_is_refused_and_the_server_goes_on() {
    let server = start(1, "");
    let long = format!("X-Long: {}", "x".repeat(20_000));
    assert_eq!(call(server.admin(), "GET /healthz", &[&long], "").code, 431);
    let many: Vec<String> = (0..100).map(|n| format!("X-{n}: 1")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(call(server.admin(), "GET /healthz", &many, "").code, 431);
    let body = format!("{{\"room\":\"a\",\"from\":\"b\",\"body\":\"{}\"}}", "x".repeat(1 << 20));
    call(server.admin(), "POST /v1/publish", &[], &body).assert_problem(413, "body_too_large");
    assert_eq!(get(server.admin(), "/healthz").code, 200);
    server.stop().assert_clean();
}

#[test]
fn slow_clients_are_ended_and_hold_nobody_up() {
    let server = start(1, "");
    let mut slow: Vec<_> = (0..20).map(|_| dial(server.admin())).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: local").unwrap();
    }
    let mut half = dial(server.admin());
    half.write_all(format!("POST /v1/publish HTTP/1.1\r\nHost: {}\r\nContent-Length: 100\r\n\r\n{{", server.admin()).as_bytes()).unwrap();
    assert_eq!(get(server.admin(), "/healthz").code, 200);
    for mut stream in slow {
        // The end of the stream, with or without a word before it.
        let _ = stream.read_to_end(&mut Vec::new()).expect("ended by the server, not by patience");
    }
    let mut bytes = [0; 12];
    half.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"HTTP/1.1 408");
    server.stop().assert_clean();
}

#[test]
fn above_the_limit_a_connection_is_told_so_and_room_comes_back() {
    let server = start(1, "");
    let held: Vec<_> = (0..128).map(|_| dial(server.admin())).collect();
    wait_until("one more is one too many", || {
        let mut stream = dial(server.admin());
        stream.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
        read_reply(&mut stream).is_some_and(|reply| reply.code == 503 && reply.json()["reason"] == "overloaded")
    });
    drop(held);
    wait_until("there is room again", || {
        let mut stream = dial(server.admin());
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        read_reply(&mut stream).is_some_and(|reply| reply.code == 200)
    });
    server.stop().assert_clean();
}

#[test]
fn the_description_names_the_routes_that_exist_and_no_others() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let mut described: Vec<(String, String)> = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        described.extend(item.as_object().unwrap().keys().map(|method| (method.clone(), path.clone())));
    }
    described.sort();
    let mut routes: Vec<(String, String)> = ROUTES.iter().map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
    routes.sort();
    assert_eq!(described, routes);
    let server = start(1, "");
    assert_eq!(get(server.admin(), "/v1/openapi.json").json(), document);
    let _member = Client::member(server.address(), "ann", "lobby");
    for (method, path) in ROUTES.iter().filter(|(_, path)| *path != "/v1/drain") {
        let path = path.replace("{room}", "lobby").replace("{id}", "ff");
        let reply = call(server.admin(), &format!("{} {path}", method.to_uppercase()), &[], "");
        let codes = &document["paths"][path_of(&path)][*method]["responses"];
        assert!(codes.get(reply.code.to_string()).is_some(), "{method} {path}: {reply:?}");
    }
    server.stop().assert_clean();
}

fn path_of(path: &str) -> &str {
    match path {
        "/v1/rooms/lobby" => "/v1/rooms/{room}",
        "/v1/sessions/ff" => "/v1/sessions/{id}",
        path => path,
    }
}

#[test]
fn answers_have_the_shape_that_is_described() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let server = start(2, "");
    let _member = Client::member(server.address(), "ann", "lobby");
    let shape = |path: &str, schema: &str| {
        let reply = get(server.admin(), path);
        check(&document, &json!({"$ref": format!("#/components/schemas/{schema}")}), &reply.json(), path);
    };
    for (path, schema) in [
        ("/healthz", "Status"),
        ("/readyz", "Status"),
        ("/v1/info", "Info"),
        ("/v1/rooms", "Rooms"),
        ("/v1/rooms/lobby", "RoomDetail"),
        ("/v1/sessions?user=ann", "Sessions"),
        ("/v1/top", "Top"),
        ("/v1/rooms/absent", "Error"),
        ("/v1/sessions", "Error"),
    ] {
        shape(path, schema);
    }
    let sent = post(server.admin(), "/v1/publish", &json!({"room": "lobby", "from": "bot", "body": 1}));
    check(&document, &json!({"$ref": "#/components/schemas/Sent"}), &sent.json(), "publish");
    server.stop().assert_clean();
}

/// As much of JSON Schema as the description uses: every field is described, every required one is there, types and bounds are kept.
fn check(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        let schema = document.pointer(name.trim_start_matches('#')).unwrap_or_else(|| panic!("{name}"));
        return check(document, schema, value, at);
    }
    if let Some(all) = schema["allOf"].as_array() {
        return all.iter().for_each(|schema| check(document, schema, value, at));
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => return assert!(schema["enum"].as_array().is_none_or(|words| words.contains(value)), "{at}: {value}"),
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    assert!(kinds.contains(&kind), "{at}: {value} is not {kinds:?}");
    for item in value.as_array().into_iter().flatten() {
        check(document, &schema["items"], item, &format!("{at}[]"));
    }
    for required in schema["required"].as_array().into_iter().flatten() {
        assert!(value.get(required.as_str().unwrap()).is_some(), "{at}: {required} is missing in {value}");
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(field) = value.get(name) {
            check(document, property, field, &format!("{at}.{name}"));
        }
    }
    if let (Some(least), Some(number)) = (schema["minimum"].as_i64(), value.as_i64()) {
        assert!(number >= least, "{at}: {value}");
    }
}

#[test]
fn a_page_is_served_that_needs_nothing_from_elsewhere() {
    let server = start(1, "");
    let reply = http::get(server.admin(), "/");
    assert!(reply.code == 200 && reply.header.to_lowercase().contains("content-security-policy: default-src 'none'"), "{}", reply.header);
    for elsewhere in ["http://", "https://", "//cdn", "@import", "src="] {
        assert!(!reply.body.replace("http://www.w3.org/2000/svg", "").contains(elsewhere), "{elsewhere}");
    }
    server.stop().assert_clean();
}
