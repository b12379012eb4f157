#!/usr/bin/perl
# Takes one message after the other from the queue and writes it into the database.
use strict;
use warnings;
require './store.pl';

$| = 1;
$SIG{TERM} = sub { print "stopping\n"; exit 0 };
print "waiting for messages\n";
while (1) {
    my $message = eval { redis('BLPOP', 'messages', 1) };
    if ($@) { print $@; sleep 1; next }
    next unless defined $message;
    # What cannot be written goes back to where it came from.
    eval { sql("INSERT INTO messages (message) VALUES (:'message')", $message); print "wrote a message\n"; 1 }
        or do { print $@; eval { redis('LPUSH', 'messages', $message) }; sleep 1 };
}
