//! Replies come in the order of the requests, whole, however long the one or the other takes.

use crate::common::Chance;
use crate::common::client::set_request;
use crate::common::server::Server;
use std::fmt::Write;

crate::in_each_mode! { &["-m", "256"] =>
    ten_thousand_keys_in_one_get,
    long_requests_do_not_overtake_short_ones,
    values_of_every_size_come_back,
    a_request_may_come_in_any_pieces,
}

fn ten_thousand_keys_in_one_get(mut server: Server) {
    let mut client = server.client();
    let mut sets = Vec::new();
    for number in 0..10_000 {
        sets.extend(format!("set many:{number} 0 0 5 noreply\r\n{number:05}\r\n").bytes());
    }
    client.send(sets);
    let mut line = String::from("get");
    for number in 0..10_000 {
        write!(line, " many:{number}").unwrap();
        if number % 100 == 0 {
            write!(line, " none:{number}").unwrap();
        }
    }
    // The reply is larger than what sockets hold, so it is read while the line is sent.
    let mut writer = client.stream().try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        std::io::Write::write_all(&mut writer, format!("{line}\r\nversion\r\n").as_bytes())
            .unwrap();
    });
    let values = client.values();
    sender.join().unwrap();
    assert_eq!(values.len(), 10_000);
    for (number, (key, value)) in values.iter().enumerate() {
        assert_eq!((key, value), (&format!("many:{number}"), &format!("{number:05}").into_bytes()));
    }
    assert!(client.line().starts_with("VERSION "));
    server.assert_serves();
}

fn long_requests_do_not_overtake_short_ones(mut server: Server) {
    let mut client = server.client();
    let large = Chance::new(7).bytes(300_000);
    client.set("large", &large);
    client.set("small", b"s");
    let keys: String = (0..600).map(|number| format!(" none:{number}")).collect();
    let mut batch = Vec::new();
    for number in 0..20 {
        batch.extend(format!("get small\r\nget{keys} small\r\nget large\r\n").bytes());
        batch.extend(set_request("number", number.to_string().as_bytes()));
        batch.extend(format!("get number{keys}\r\n").bytes());
    }
    let mut writer = client.stream().try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        std::io::Write::write_all(&mut writer, &batch).unwrap();
    });
    let item = |key: &str, value: &[u8]| (key.to_string(), value.to_vec());
    for number in 0..20 {
        assert_eq!(client.values(), [item("small", b"s")], "round {number}");
        assert_eq!(client.values(), [item("small", b"s")], "round {number}");
        assert!(client.values() == [item("large", &large)], "round {number}");
        assert_eq!(client.line(), "STORED", "round {number}");
        assert_eq!(client.values(), [item("number", number.to_string().as_bytes())]);
    }
    sender.join().unwrap();
    server.assert_serves();
}

fn values_of_every_size_come_back(mut server: Server) {
    let mut client = server.client();
    let mut chance = Chance::new(11);
    let around = |size: usize| [size - 1, size, size + 1];
    let sizes = [0, 1, 2]
        .into_iter()
        .chain([16, 64, 1024, 4096, 16_384, 65_536, 131_072, 524_288].into_iter().flat_map(around));
    let sizes: Vec<usize> = sizes.chain([1_048_000]).collect();
    let values: Vec<_> = sizes.iter().map(|size| (*size, chance.bytes(*size))).collect();
    for (size, value) in &values {
        client.set(&format!("size:{size}"), value);
    }
    for (size, value) in &values {
        let got = client.get(&format!("size:{size}")).unwrap();
        assert!(got == *value, "a value of {size} bytes came back otherwise");
    }
    // Replaced by its neighbour in size, then gone.
    for pair in values.windows(2) {
        let key = format!("size:{}", pair[0].0);
        client.set(&key, &pair[1].1);
        assert!(client.get(&key).unwrap() == pair[1].1, "{key} replaced");
        client.ask(&format!("delete {key}"), "DELETED");
        assert_eq!(client.get(&key), None);
    }
    server.assert_serves();
}

fn a_request_may_come_in_any_pieces(mut server: Server) {
    let mut chance = Chance::new(13);
    for round in 0..30 {
        let mut client = server.client();
        let length = 1 + chance.below(3000);
        let value = chance.bytes(length);
        let mut batch = set_request("pieces", &value);
        batch.extend(b"get pieces none pieces\r\nincr none 1\r\ndelete pieces\r\nget pieces\r\n");
        let mut rest = batch.as_slice();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(1 + chance.below(rest.len().min(400)));
            client.send(piece);
            rest = after;
            std::thread::sleep(std::time::Duration::from_micros(chance.number() % 500));
        }
        assert_eq!(client.line(), "STORED", "round {round}");
        let item = (String::from("pieces"), value);
        assert_eq!(client.values(), [item.clone(), item], "round {round}");
        assert_eq!(client.line(), "NOT_FOUND", "round {round}");
        assert_eq!(client.line(), "DELETED", "round {round}");
        assert_eq!(client.values(), [], "round {round}");
    }
    server.assert_serves();
}
