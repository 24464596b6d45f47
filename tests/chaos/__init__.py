"""Proof under faults: real clients, real servers, every fault a deployment knows, and a checker that trusts nobody."""
