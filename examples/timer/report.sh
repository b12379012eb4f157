#!/bin/sh
# What it prints is in `convox logs`.
echo "${1:-report} at $(date -u +%H:%M): $GREETING"
