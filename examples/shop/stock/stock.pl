#!/usr/bin/perl
# How many there are of what: GET /apples.
use strict;
use warnings;
use IO::Socket::INET;

my %stock = (apples => 12, pears => 7);
my $host = $ENV{HOST} || '127.0.0.1';
my $port = $ENV{PORT} || 3000;
$| = 1;
$SIG{PIPE} = 'IGNORE';
my $server = IO::Socket::INET->new(LocalAddr => $host, LocalPort => $port, Listen => 128, ReuseAddr => 1)
    or die "cannot listen on $host:$port: $!\n";
while (1) {
    my $client = $server->accept or next;
    my $line   = <$client>;
    while (my $header = <$client>) { last if $header =~ /^\r?\n$/ }
    my ($what) = ($line || '') =~ m{^GET /(\w+)};
    my $found = defined $what && $what eq 'health' ? 'ok' : defined $what ? $stock{$what} : undef;
    my ($status, $body) = defined $found ? ('200 OK', "$found\n") : ('404 Not Found', "none\n");
    print $client "HTTP/1.1 $status\r\nContent-Length: " . length($body) . "\r\nConnection: close\r\n\r\n$body";
    close $client;
}
