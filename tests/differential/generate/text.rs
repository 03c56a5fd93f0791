//! Requests of the classic text protocol.

use super::{Dialect, Effect, Request, Source};

impl Source {
    pub(super) fn text(&mut self) -> Request {
        match self.below(100) {
            0..=29 => self.store(),
            30..=36 => self.wrong_store(),
            37..=55 => self.retrieval(),
            56..=61 => self.get_and_touch(),
            62..=67 => self.touch(),
            68..=76 => self.deletion(),
            77..=92 => self.arithmetic(),
            93 => self.flush(),
            _ => self.junk(),
        }
    }

    fn noreply(&mut self) -> &'static str {
        if self.happens(8) { " noreply" } else { "" }
    }

    fn line_end(&mut self) -> &'static str {
        if self.happens(20) { "\n" } else { "\r\n" }
    }

    /// A storage command up to its flags.
    fn store_verb(&mut self) -> &'static str {
        self.one_of(&["set", "set", "set", "add", "replace", "append", "prepend", "cas", "cas"])
    }

    fn store(&mut self) -> Request {
        let key = self.key().0;
        let (verb, value) = (self.store_verb(), self.value(key));
        let mut request = Request::about(Dialect::Text, key);
        let flags = self.one_of(&["0", "0", "7", "4294967295", "00"]);
        request.push(format!("{verb} "));
        request.push(key);
        request.push(format!(" {flags} {} {}", self.exptime(), value.len()));
        if verb == "cas" {
            request.push(" ");
            let choice = self.choice();
            request.push_cas(key, choice);
        }
        request.push(self.noreply());
        request.push(self.line_end());
        request.push(value);
        request.push("\r\n");
        request
    }

    /// One whose line, or value, is not as it should be.
    fn wrong_store(&mut self) -> Request {
        let key = self.key().0;
        let mut request = Request::about(Dialect::Text, key);
        let verb = self.store_verb();
        let cas = if verb == "cas" { " 1" } else { "" };
        request.push(format!("{verb} "));
        let noreply = self.noreply();
        if self.happens(3) {
            // The value is longer than it is said to be.
            let rest = self.one_of(&["x", "xy", "xyz", "xyz word", "\r", "\n"]);
            request.push(key);
            request.push(format!(" 0 0 3{cas}{noreply}\r\nabc{rest}\r\n"));
            return request;
        }
        match self.below(6) {
            0 => {
                request.push([b'k'; 251]);
                request.push(format!(" 0 0 2{cas}{noreply}\r\n"));
            }
            1 => {
                request.push(key);
                let flags = self.one_of(&["x", "-1", "4294967296", "18446744073709551616", "1x"]);
                request.push(format!(" {flags} 0 2{cas}{noreply}\r\n"));
            }
            2 => {
                request.push(key);
                let exptime = self.one_of(&["x", "1x", "99999999999999999999"]);
                request.push(format!(" 0 {exptime} 2{cas}{noreply}\r\n"));
            }
            3 => {
                request.push(key);
                let all = ["x", "-1", "-2147483648", "2x", "4294967298"];
                // Older ones have fewer bits.
                let bytes = self.one_of(if self.is_new() { &all } else { &all[..4] });
                request.push(format!(" 0 0 {bytes}{cas}{noreply}\r\n"));
            }
            4 => {
                request.push(key);
                let all = ["", " 0", " 0 0", " 0 0 2 1 noreply now", " 0 0 2 x"];
                // Older ones count the words.
                let words = self.one_of(if self.is_new() { &all } else { &all[..3] });
                request.push(format!("{words}\r\n"));
            }
            _ => {
                request.push(key);
                let bytes = 1_048_577 + self.below(1000);
                request.push(format!(" 0 0 {bytes}{cas}{noreply}\r\n"));
                request.push(vec![b'x'; bytes]);
                request.push("\r\n");
                return request;
            }
        }
        request.push("zz\r\n");
        request
    }

    /// Several keys, perhaps.
    fn keys(&mut self, request: &mut Request) {
        let count = if self.happens(3) { 2 + self.below(6) } else { 1 };
        for _ in 0..count {
            let key = self.key().0;
            request.push(if self.happens(20) { "  " } else { " " });
            request.push(key);
            request.keys.push(key.to_vec());
        }
    }

    fn retrieval(&mut self) -> Request {
        let mut request = Request::new(Dialect::Text);
        request.effect = Effect::Reads;
        // Runs of them are looked up together.
        let count = if self.happens(6) { 2 + self.below(12) } else { 1 };
        for _ in 0..count {
            request.push(self.one_of(&["get", "gets", "gets"]));
            self.keys(&mut request);
            request.push(self.line_end());
        }
        request
    }

    fn get_and_touch(&mut self) -> Request {
        let mut request = Request::new(Dialect::Text);
        request.effect = Effect::Reads;
        request.push(self.one_of(&["gat ", "gats "]));
        let is_wrong = self.happens(10);
        request.push(if is_wrong { "x" } else { self.exptime() });
        self.keys(&mut request);
        request.push("\r\n");
        request
    }

    fn touch(&mut self) -> Request {
        let key = self.key().0;
        let mut request = Request::about(Dialect::Text, key);
        request.push("touch ");
        request.push(key);
        let is_wrong = self.happens(10);
        let exptime = if is_wrong { self.one_of(&["x", "1x", ""]) } else { self.exptime() };
        request.push(format!(" {exptime}{}\r\n", self.noreply()));
        request
    }

    fn deletion(&mut self) -> Request {
        let key = self.key().0;
        let mut request = Request::about(Dialect::Text, key);
        request.push("delete ");
        request.push(key);
        if self.happens(10) {
            request.push(" 0");
        }
        request.push(self.noreply());
        request.push(self.line_end());
        request
    }

    /// A number, and what is added to it, at once.
    pub(super) fn run_of_counts(&mut self) -> Vec<Request> {
        let (key, number) = (b"count", self.one_of(&["0", "99", "18446744073709551600"]));
        let mut first = Request::about(Dialect::Text, key);
        first.push(format!("set count 7 0 {}\r\n{number}\r\n", number.len()));
        let mut step = vec![first];
        for _ in 0..1 + self.below(9) {
            step.push(self.arithmetic_of(key));
        }
        step
    }

    fn arithmetic(&mut self) -> Request {
        let key = if self.happens(3) { self.key().0 } else { b"number" };
        self.arithmetic_of(key)
    }

    fn arithmetic_of(&mut self, key: &[u8]) -> Request {
        let mut request = Request::about(Dialect::Text, key);
        request.effect = Effect::Counts;
        request.push(self.one_of(&["incr ", "incr ", "decr "]));
        request.push(key);
        const FINE: &[&str] = &["1", "1", "5", "0", "97", "18446744073709551615", "007"];
        const ODD: &[&str] = &["x", "-1", "18446744073709551616", "1x", "", "+1"];
        // Older ones take a sign for a part of a number.
        let odd = if self.is_new() { ODD } else { &ODD[..5] };
        let delta = if self.happens(8) { self.one_of(odd) } else { self.one_of(FINE) };
        request.push(format!(" {delta}{}", self.noreply()));
        request.push(self.line_end());
        request
    }

    fn flush(&mut self) -> Request {
        let mut request = Request::new(Dialect::Text);
        request.is_wide = true;
        let lines: &[&str] = match self.chooses_cas {
            true => &["flush_all x", "flush_all 1x", "flush_all noreply x"],
            false => &["flush_all", "flush_all 0", "flush_all noreply", "flush_all 0 noreply"],
        };
        request.push(self.one_of(lines));
        request.push("\r\n");
        request
    }

    /// What is no request, or hardly.
    fn junk(&mut self) -> Request {
        let mut request = Request::new(Dialect::Text);
        let line = self.one_of(&[
            "",
            "x",
            "ab",
            "nonsense",
            "GET a",
            "Get a",
            "set",
            "cas",
            "get",
            "gets",
            "gat",
            "gat 0",
            "touch",
            "touch a",
            "delete",
            "incr",
            "incr a",
            "decr number",
            "verbosity 0",
            "verbosity 0 noreply",
            "verbosity",
            "verbosity x",
            "stats nonsense",
            "nonsense a b c",
            "noreply",
            "getx a",
            "incr\ta 1",
            "delete a b",
            "delete a 5",
            "touch a 0 0",
            "quit",
            "cache_memlimit x",
            "slabs",
            "slabs nonsense",
            "lru",
            "lru_crawler",
            "flush_all x",
        ]);
        if line.starts_with("delete a") || line.starts_with("touch a") {
            request.keys.push(b"a".to_vec());
        }
        if self.happens(20) {
            request.push("get a ");
            request.push([b'k'; 251]);
            request.push(" b\r\n");
            request.keys = vec![b"a".to_vec(), b"b".to_vec()];
            return request;
        }
        request.push(line);
        request.push(self.line_end());
        request
    }
}
