#!/usr/bin/perl
# GET / shows what was written, POST / takes the body as a new message, GET /health says that all is well.
use strict;
use warnings;
use IO::Socket::INET;
use POSIX ();
require './store.pl';

my $host = $ENV{HOST} || '127.0.0.1';
my $port = $ENV{PORT} || 3000;
$| = 1;
$SIG{PIPE} = 'IGNORE';

sql("CREATE TABLE IF NOT EXISTS messages (id BIGSERIAL PRIMARY KEY, message TEXT NOT NULL)");
my $server = IO::Socket::INET->new(LocalAddr => $host, LocalPort => $port, Listen => 128, ReuseAddr => 1)
    or die "cannot listen on $host:$port: $!\n";
print "listening on $host:$port\n";
$SIG{TERM} = sub { POSIX::_exit(0) };

while (1) {
    my $client = $server->accept or next;
    my $line   = <$client>;
    next unless defined $line;
    my $length = 0;
    while (my $header = <$client>) {
        last if $header =~ /^\r?\n$/;
        $length = $1 if $header =~ /^content-length:\s*(\d+)/i && $1 <= 10_000;
    }
    read $client, my $body, $length if $length;
    my ($method, $path) = $line =~ m{^([A-Z]+) ([^ ?]*)};
    my ($status, $text) = ('404 Not Found', "not found\n");
    if ($path && $path eq '/health') { ($status, $text) = ('200 OK', "ok\n") }
    elsif ($path && $path eq '/') {
        my $done = eval {
            if ($method eq 'POST') { redis('RPUSH', 'messages', $body || ''); ($status, $text) = ('202 Accepted', "thank you\n") }
            else { ($status, $text) = ('200 OK', join '', map { "$_\n" } sql("SELECT id || ': ' || message FROM messages ORDER BY id")) }
            1;
        };
        if (!$done) { print $@; ($status, $text) = ('503 Service Unavailable', "try again\n") }
    }
    print $client "HTTP/1.1 $status\r\nContent-Type: text/plain\r\nContent-Length: " . length($text) . "\r\nConnection: close\r\n\r\n$text";
    close $client;
}
