#!/usr/bin/perl
# Answers every request with the file that its argument names.
use strict;
use warnings;
use IO::Socket::INET;

my ($name) = @ARGV;
my $body = do { local $/; open my $file, '<', $name or die "$name: $!\n"; <$file> };
my $host = $ENV{HOST} || '127.0.0.1';
my $port = $ENV{PORT} || 3000;
$SIG{PIPE} = 'IGNORE';
my $server = IO::Socket::INET->new(LocalAddr => $host, LocalPort => $port, Listen => 128, ReuseAddr => 1)
    or die "cannot listen on $host:$port: $!\n";
while (my $client = $server->accept) {
    while (my $line = <$client>) { last if $line =~ /^\r?\n$/ }
    print $client "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: " . length($body) . "\r\nConnection: close\r\n\r\n$body";
    close $client;
}
