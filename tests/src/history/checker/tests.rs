//! Each property: a small history that keeps it, and one for each way to break it.

use super::{
    super::line::{Kind, Line, Run, What, digest},
    Property, check,
};

const CHAT: &str = "chat";

/// A history of two people in one chat, line by line, that keeps every promise.
#[derive(Clone)]
struct Story {
    lines: Vec<Line>,
    stored: u64,
}

impl Story {
    fn new() -> Self {
        let run = Run { pushed: true, seen_within_ms: 1_000, ..Run::default() };
        let mut story = Self { lines: vec![Line { run: Some(run), ..Line::default() }], stored: 0 };
        for name in ["ana", "ben"] {
            story.say(What::AddMember, Kind::Ok, |line| line.user = Some(name.to_owned()));
            story.client(name, What::Connect, Kind::Ok, |_| {});
            story.client(name, What::Ready, Kind::Ok, |_| {});
        }
        story
    }

    /// Messages that Ana sends and Ben is pushed, and the end.
    fn of(count: u64) -> Self {
        let mut story = Self::new();
        for _ in 0..count {
            story.message();
        }
        story
    }

    fn say(&mut self, what: What, kind: Kind, more: impl FnOnce(&mut Line)) -> &mut Line {
        let at = self.lines.last().map_or(0, |line| line.at) + 1_000;
        let mut line = Line { at, kind, what, chat: Some(CHAT.to_owned()), ..Line::default() };
        more(&mut line);
        self.lines.push(line);
        self.lines.last_mut().expect("just pushed")
    }

    fn client(&mut self, name: &str, what: What, kind: Kind, more: impl FnOnce(&mut Line)) -> &mut Line {
        self.say(what, kind, |line| {
            (line.session, line.user, line.epoch) = (format!("{name}/1"), Some(name.to_owned()), 1);
            more(line);
        })
    }

    fn message(&mut self) {
        self.stored += 1;
        let number = self.stored;
        self.client("ana", What::Send, Kind::Invoke, |line| sent(line, number));
        self.client("ana", What::Send, Kind::Ok, |line| {
            sent(line, number);
            placed(line, number);
        });
        for what in [What::Deliver, What::Show] {
            self.client("ben", what, Kind::Ok, |line| {
                placed(line, number);
                (line.user, line.client_id) = (Some("ben".to_owned()), None);
                line.body = Some(body(number));
            })
            .user = None;
        }
        self.client("ana", What::Show, Kind::Ok, |line| placed(line, number)).user = None;
    }

    fn page(&mut self, name: &str, cursor: u64, through: u64) {
        self.client(name, What::Sync, Kind::Invoke, |line| line.cursor = Some(cursor));
        self.client(name, What::Sync, Kind::Ok, |line| {
            line.items = (cursor + 1..=through).map(|at| (at, id(at), body(at))).collect();
            line.more = Some(false);
        });
    }

    /// The final reads.
    fn end(mut self) -> Self {
        for number in 1..=self.stored {
            self.say(What::Row, Kind::Ok, |line| {
                (line.user, line.client_id) = (Some("ana".to_owned()), Some(client_id(number)));
                line.body = Some(body(number));
                placed(line, number);
            });
            self.say(What::Log, Kind::Ok, |line| {
                (line.partition, line.offset) = (Some(0), number.checked_sub(1).map(u64::cast_signed));
                placed(line, number);
            });
        }
        let head = self.stored;
        self.say(What::Head, Kind::Ok, |line| line.sequence = Some(head));
        self.say(What::Scanned, Kind::Ok, |_| {});
        self.say(What::Dumped, Kind::Ok, |_| {});
        for name in ["ana", "ben"] {
            let of = |line: &mut Line| (line.session, line.epoch) = (format!("{name}/final"), 1);
            self.client(name, What::Connect, Kind::Ok, of);
            self.page(name, 0, head);
            for line in self.lines.iter_mut().rev().take(2) {
                of(line);
            }
            self.client(name, What::Final, Kind::Ok, of);
        }
        self
    }

    /// The first line of that operation and kind, to be changed.
    fn first(&mut self, what: What, kind: Kind) -> &mut Line {
        self.lines.iter_mut().find(|line| line.what == what && line.kind == kind).expect("such a line")
    }

    fn last(&mut self, what: What, kind: Kind) -> &mut Line {
        self.lines.iter_mut().rfind(|line| line.what == what && line.kind == kind).expect("such a line")
    }

    fn without(mut self, is_out: impl Fn(&Line) -> bool) -> Self {
        self.lines.retain(|line| !is_out(line));
        self
    }

    fn is_accepted(&self) {
        let report = check(&self.lines);
        assert!(report.is_accepted(), "{:#?}", report.violations);
    }

    fn breaks(&self, property: Property) {
        let report = check(&self.lines);
        assert!(report.rejects(property), "{property} is not among {:#?}", report.violations);
        for violation in &report.violations {
            assert!(violation.lines.iter().all(|line| (1..=self.lines.len()).contains(line)), "{violation:?}");
        }
    }
}

fn id(sequence: u64) -> String {
    format!("msg_{sequence}")
}

fn client_id(number: u64) -> String {
    format!("client_{number}")
}

fn body(number: u64) -> String {
    digest(&format!("text {number}"))
}

fn sent(line: &mut Line, number: u64) {
    (line.client_id, line.body) = (Some(client_id(number)), Some(body(number)));
}

fn placed(line: &mut Line, sequence: u64) {
    (line.sequence, line.message_id) = (Some(sequence), Some(id(sequence)));
}

#[test]
fn a_history_that_keeps_every_promise_is_accepted() {
    Story::of(3).end().is_accepted();
    let report = check(&Story::of(3).end().lines);
    assert_eq!((report.counts.sends, report.counts.acknowledged, report.counts.rows), (3, 3, 3));
    assert_eq!((report.counts.pushes, report.counts.records, report.counts.pages), (3, 3, 2));
}

#[test]
fn p1_names_what_was_acknowledged_and_is_gone() {
    for what in [What::Row, What::Log] {
        Story::of(2).end().without(|line| line.what == what && line.sequence == Some(2)).breaks(Property::P1);
    }
    let mut story = Story::of(2).end();
    story.last(What::Sync, Kind::Ok).items.pop();
    story.breaks(Property::P1);
    // A history that did not look is none that found everything.
    for marker in [What::Scanned, What::Dumped, What::Final] {
        Story::of(2).end().without(|line| line.what == marker).breaks(Property::P1);
    }
    check(&[]).rejects(Property::P1).then_some(()).expect("an empty history is not accepted");
}

#[test]
fn p2_names_what_nobody_sent() {
    let mut story = Story::of(2).end();
    story.first(What::Row, Kind::Ok).client_id = Some("somebody's".to_owned());
    story.breaks(Property::P2);
    let mut story = Story::of(2).end();
    story.first(What::Row, Kind::Ok).body = Some(digest("another text"));
    story.breaks(Property::P2);
    let mut story = Story::of(2).end();
    story.first(What::Deliver, Kind::Ok).message_id = Some("msg_x".to_owned());
    story.breaks(Property::P2);
    // Refused for good, and there all the same.
    let mut story = Story::of(2).end();
    let ack = story.first(What::Send, Kind::Ok);
    (ack.kind, ack.sequence, ack.message_id) = (Kind::Fail, None, None);
    story.breaks(Property::P2);
    // Refused once and unknown once: it may be there.
    let mut story = Story::of(2).end();
    let ack = story.first(What::Send, Kind::Ok);
    (ack.kind, ack.sequence, ack.message_id) = (Kind::Info, None, None);
    assert!(!check(&story.lines).rejects(Property::P2));
}

#[test]
fn p3_names_what_is_there_twice() {
    let mut story = Story::of(2).end();
    let again = Line { sequence: Some(3), ..story.first(What::Row, Kind::Ok).clone() };
    story.lines.push(again);
    story.breaks(Property::P3);
    let mut story = Story::of(2).end();
    story.last(What::Log, Kind::Ok).message_id = Some("msg_y".to_owned());
    story.breaks(Property::P3);
    for what in [What::Show, What::Deliver] {
        let mut story = Story::of(2).end();
        let again = Line { at: u64::MAX, ..story.last(what, Kind::Ok).clone() };
        story.lines.push(again);
        story.breaks(Property::P3);
    }
    // On another connection a push may come again.
    let mut story = Story::of(2).end();
    let again = Line { at: u64::MAX, epoch: 2, ..story.last(What::Deliver, Kind::Ok).clone() };
    story.lines.push(again);
    assert!(!check(&story.lines).rejects(Property::P3));
}

#[test]
fn p4_names_what_is_out_of_order() {
    // Acknowledged before the other was begun, and behind it.
    let mut story = Story::of(2).end();
    for line in &mut story.lines {
        if let (What::Send | What::Row, Some(sequence)) = (line.what, line.sequence) {
            line.sequence = Some(3 - sequence);
        }
    }
    story.breaks(Property::P4);
    for what in [What::Deliver, What::Show] {
        let mut story = Story::of(3).end();
        let place = |story: &Story, sequence| {
            let is = |line: &Line| line.what == what && line.sequence == Some(sequence) && line.session == "ben/1";
            story.lines.iter().position(is).expect("there")
        };
        let (first, second) = (place(&story, 1), place(&story, 2));
        let (one, two) = (story.lines[first].clone(), story.lines[second].clone());
        (story.lines[first], story.lines[second]) = (two, one);
        story.breaks(Property::P4);
    }
    let mut story = Story::of(2).end();
    story.first(What::Log, Kind::Ok).offset = Some(9);
    story.breaks(Property::P4);
    // The same record again later is a repetition, not another order.
    let mut story = Story::of(2).end();
    let again = Line { offset: Some(9), ..story.first(What::Log, Kind::Ok).clone() };
    story.lines.push(again);
    assert!(!check(&story.lines).rejects(Property::P4));
}

#[test]
fn p5_names_gaps() {
    let missed = |line: &Line| line.what == What::Deliver && line.sequence == Some(2);
    Story::of(3).end().without(missed).breaks(Property::P5);
    // A sync closes the hole, but where all is pushed a sync is not enough.
    let mut story = Story::of(3);
    story.page("ben", 1, 3);
    let story = story.end().without(missed);
    story.breaks(Property::P5);
    let mut story = story;
    story.lines[0].run = Some(Run { pushed: false, ..Run::default() });
    story.is_accepted();
    // What an application sees has no gap ever.
    let mut story =
        story.without(|line| line.what == What::Show && line.session == "ben/1" && line.sequence == Some(2));
    story.lines[0].run = Some(Run { pushed: false, ..Run::default() });
    story.breaks(Property::P5);
}

#[test]
fn p6_names_pages_that_are_not_whole() {
    let with_page = |change: fn(&mut Line)| {
        let mut story = Story::of(3);
        story.page("ben", 1, 3);
        change(story.last(What::Sync, Kind::Ok));
        story.end()
    };
    with_page(|_| {}).is_accepted();
    with_page(|page| drop(page.items.pop())).breaks(Property::P6);
    with_page(|page| drop(page.items.remove(0))).breaks(Property::P6);
    with_page(|page| page.items.clear()).breaks(Property::P6);
    with_page(|page| page.items.swap(0, 1)).breaks(Property::P6);
    // Of a page that says that more follows, the rest may be missing.
    let story = with_page(|page| {
        page.items.pop();
        page.more = Some(true);
    });
    assert!(!check(&story.lines).rejects(Property::P6));
}

#[test]
fn p7_names_two_answers_to_one_request() {
    let mut story = Story::of(2);
    story.client("ana", What::Send, Kind::Invoke, |line| sent(line, 1));
    story.client("ana", What::Send, Kind::Ok, |line| {
        sent(line, 1);
        placed(line, 1);
    });
    story.clone().end().is_accepted();
    story.last(What::Send, Kind::Ok).message_id = Some("msg_z".to_owned());
    story.end().breaks(Property::P7);

    let refreshed = |second: &str| {
        let mut story = Story::of(1);
        for token in ["second", second] {
            story.client("ana", What::Refresh, Kind::Ok, |line| {
                (line.client_id, line.message_id) = (Some("first".to_owned()), Some(token.to_owned()));
            });
        }
        story.end()
    };
    refreshed("second").is_accepted();
    refreshed("third").breaks(Property::P7);
}

#[test]
fn p8_names_who_sees_a_chat_without_being_in_it() {
    let removed = |grace: u64| {
        let mut story = Story::of(1);
        story.say(What::RemoveMember, Kind::Ok, |line| line.user = Some("ben".to_owned())).at += grace * 1000;
        // As if the clock went on while nothing happened.
        story.say(What::Run, Kind::Info, |line| line.chat = None).at += grace * 1000;
        story.message();
        story.end().without(|line| line.session == "ben/final")
    };
    removed(6_000).breaks(Property::P8);
    assert!(!check(&removed(1_000).lines).rejects(Property::P8), "a late push is allowed for a while");
    let story = Story::of(1).end().without(|line| line.what == What::AddMember && line.user.as_deref() == Some("ben"));
    story.breaks(Property::P8);
}

#[test]
fn p9_names_what_is_not_seen_in_time_and_what_has_no_end() {
    let last = |line: &Line| line.what == What::Deliver && line.sequence == Some(3);
    Story::of(3).end().without(last).breaks(Property::P9);
    let mut story = Story::of(3).without(last);
    story.say(What::Run, Kind::Info, |_| {}).at += 2_000_000;
    story.page("ben", 2, 3);
    story.lines[0].run = Some(Run { seen_within_ms: 1_000, ..Run::default() });
    story.clone().end().breaks(Property::P9);
    // The same is in time when a fault ended in between.
    let healed = story.lines.iter().position(|line| line.what == What::Sync).expect("a sync");
    let fault = Line { at: story.lines[healed].at, what: What::Fault, kind: Kind::Ok, ..Line::default() };
    story.lines.insert(healed, fault);
    assert!(!check(&story.end().lines).rejects(Property::P9));
    let mut story = Story::of(1);
    story.client("ana", What::Send, Kind::Invoke, |line| sent(line, 7));
    story.end().breaks(Property::P9);
    // A pause between two acks is too long only where acks are promised.
    let mut story = Story::of(1);
    story.say(What::Run, Kind::Info, |_| {}).at += 3_000_000;
    story.message();
    let mut story = story.end();
    for (promised, is_broken) in [(None, false), (Some(4_000), false), (Some(2_000), true)] {
        story.lines[0].run = Some(Run { seen_within_ms: 1_000, acks_within_ms: promised, ..Run::default() });
        assert_eq!(check(&story.lines).rejects(Property::P9), is_broken, "{promised:?}");
    }
}

#[test]
fn p10_names_who_keeps_what_they_took() {
    let with = |files: u64| {
        let mut story = Story::of(1);
        for files in [20, files] {
            story.say(What::Resource, Kind::Ok, |line| {
                (line.session, line.files, line.memory) = ("gateway-0".to_owned(), Some(files), Some(50_000));
            });
        }
        story.end()
    };
    with(30).is_accepted();
    with(500).breaks(Property::P10);
}

#[test]
fn p11_names_numbers_that_do_not_add_up() {
    let mut story = Story::of(2).end();
    story.first(What::Head, Kind::Ok).sequence = Some(3);
    story.breaks(Property::P11);
    Story::of(2).end().without(|line| line.what == What::Log && line.sequence == Some(1)).breaks(Property::P11);
    let committed = |offset: i64| {
        let mut story = Story::of(2);
        story.say(What::Committed, Kind::Ok, |line| (line.partition, line.offset) = (Some(0), Some(offset)));
        story.end()
    };
    committed(2).is_accepted();
    committed(3).breaks(Property::P11);
    let mut story = Story::of(2).end();
    let key = Line { what: What::Key, ..story.first(What::Row, Kind::Ok).clone() };
    story.lines.push(key);
    story.breaks(Property::P11);
}

#[test]
fn a_long_history_is_checked_in_time_that_grows_with_its_length() {
    let story = Story::of(5_000).end();
    let report = check(&story.lines);
    assert!(report.is_accepted(), "{:?}", report.violations.first());
    assert_eq!(report.counts.sends, 5_000);
}
