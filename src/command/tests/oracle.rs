//! Random conversations, held against the model.

use proptest::prelude::*;

use super::model::{Command, Model};
use crate::command::fuzzing::{ITEM_BYTES_MAX, Manner, Rig};

fn key() -> impl Strategy<Value = u8> {
    0u8..6
}

fn exptime() -> impl Strategy<Value = i64> {
    prop_oneof![
        5 => Just(0i64),
        1 => Just(-1),
        3 => 1i64..4,
        1 => 1_700_000_090i64..1_700_000_200,
        1 => Just(4_000_000_000),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => any::<u64>().prop_map(|number| number.to_string().into_bytes()),
        2 => (0u64..30).prop_map(|number| number.to_string().into_bytes()),
        3 => prop::collection::vec(any::<u8>(), 0..60),
        1 => (any::<u8>(), 1_000usize..3_000).prop_map(|(byte, len)| vec![byte; len]),
        1 => (any::<u8>(), 10_000usize..100_000).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let verbs = || prop::sample::select(vec!["set", "set", "add", "replace"]);
    let store = (verbs(), key(), any::<u32>(), exptime(), value(), any::<bool>());
    let keys = || prop::collection::vec(key(), 1..8);
    let quiet = any::<bool>;
    // What is joined is small, so that items stay below the largest size.
    let concat = prop::sample::select(vec!["append", "prepend"]);
    let small = prop::collection::vec(any::<u8>(), 0..60);
    let too_large = ITEM_BYTES_MAX..ITEM_BYTES_MAX + 9;
    prop_oneof![
        8 => store.prop_map(|(verb, key, flags, exptime, value, noreply)| {
            Command::Store { verb, key, flags, exptime, value, noreply }
        }),
        4 => (concat, key(), small, quiet()).prop_map(|(verb, key, value, noreply)| {
            Command::Store { verb, key, flags: 9, exptime: 9, value, noreply }
        }),
        3 => (key(), any::<bool>(), value(), quiet()).prop_map(|(key, right, value, noreply)| {
            Command::Cas { key, right, value, noreply }
        }),
        8 => keys().prop_map(|keys| Command::Get { keys }),
        2 => (exptime(), keys()).prop_map(|(exptime, keys)| Command::Gat { exptime, keys }),
        2 => (key(), exptime(), quiet()).prop_map(|(key, exptime, noreply)| {
            Command::Touch { key, exptime, noreply }
        }),
        2 => (key(), quiet()).prop_map(|(key, noreply)| Command::Delete { key, noreply }),
        5 => (any::<bool>(), key(), prop_oneof![0u64..20, any::<u64>()], quiet())
            .prop_map(|(up, key, delta, noreply)| Command::Arithmetic { up, key, delta, noreply }),
        1 => (0u32..4, quiet()).prop_map(|(delay, noreply)| Command::FlushAll { delay, noreply }),
        1 => (key(), quiet()).prop_map(|(key, noreply)| Command::BadChunk { key, noreply }),
        1 => (verbs(), key(), too_large, quiet()).prop_map(|(verb, key, bytes, noreply)| {
            Command::TooLarge { verb, key, bytes, noreply }
        }),
        2 => (1u64..70).prop_map(|ticks| Command::Pass { ticks }),
    ]
}

/// The request as it is sent; `cas` is what a `cas` sends.
fn request(command: &Command, cas: u64) -> Vec<u8> {
    let tail = |noreply: &bool| if *noreply { " noreply\r\n" } else { "\r\n" };
    let list = |keys: &[u8]| keys.iter().map(|key| format!(" k{key}")).collect::<String>();
    let text = match command {
        Command::Store { verb, key, flags, exptime, value, noreply } => {
            let bytes = value.len();
            let head = format!("{verb} k{key} {flags} {exptime} {bytes}{}", tail(noreply));
            return [head.as_bytes(), value, b"\r\n"].concat();
        }
        Command::Cas { key, value, noreply, .. } => {
            let head = format!("cas k{key} 3 0 {} {cas}{}", value.len(), tail(noreply));
            return [head.as_bytes(), value, b"\r\n"].concat();
        }
        Command::Get { keys } => format!("get{}\r\n", list(keys)),
        Command::Gat { exptime, keys } => format!("gat {exptime}{}\r\n", list(keys)),
        Command::Touch { key, exptime, noreply } => {
            format!("touch k{key} {exptime}{}", tail(noreply))
        }
        Command::Delete { key, noreply } => format!("delete k{key}{}", tail(noreply)),
        Command::Arithmetic { up, key, delta, noreply } => {
            let verb = if *up { "incr" } else { "decr" };
            format!("{verb} k{key} {delta}{}", tail(noreply))
        }
        Command::FlushAll { delay: 0, noreply } => format!("flush_all{}", tail(noreply)),
        Command::FlushAll { delay, noreply } => format!("flush_all {delay}{}", tail(noreply)),
        Command::BadChunk { key, noreply } => format!("set k{key} 0 0 1{}xyz", tail(noreply)),
        Command::TooLarge { verb, key, bytes, noreply } => {
            format!("{verb} k{key} 0 0 {bytes}{}{}\r\n", tail(noreply), "x".repeat(*bytes))
        }
        Command::Pass { .. } => String::new(),
    };
    text.into_bytes()
}

/// The cas that an item has now; it tells the model nothing.
fn cas_of(rig: &mut Rig, key: u8) -> u64 {
    let reply = rig.send(format!("gets k{key}\r\n").as_bytes(), Manner::Whole);
    let line = reply.split(|&byte| byte == b'\r').next().unwrap();
    let cas = line.split(|&byte| byte == b' ').nth(4).unwrap_or(b"7");
    std::str::from_utf8(cas).unwrap().parse().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_model_agrees(
        commands in prop::collection::vec(command(), 1..60),
        seed in any::<u64>(),
        part_ticks in 0u64..32,
    ) {
        let mut rig = Rig::new(false);
        rig.pass_ticks(part_ticks);
        let now = rig.now();
        let mut model = Model::at(now);
        for (index, command) in commands.iter().enumerate() {
            if let Command::Pass { ticks } = command {
                rig.pass_ticks(*ticks);
            }
            let cas = if let Command::Cas { key, right, .. } = command {
                cas_of(&mut rig, *key).wrapping_add(u64::from(!right))
            } else {
                0
            };
            let manner = Manner::Seeded(seed.wrapping_add(index as u64));
            let got = rig.send(&request(command, cas), manner);
            let wanted = model.execute(command);
            prop_assert_eq!(
                String::from_utf8_lossy(&got),
                String::from_utf8_lossy(&wanted),
                "{} {:?}", index, command
            );
        }
        let all = Command::Get { keys: (0..6).collect() };
        let got = rig.send(&request(&all, 0), Manner::Bytewise);
        prop_assert_eq!(got, model.execute(&all));
    }
}
