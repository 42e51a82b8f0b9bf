"""Payments by Stripe: what is for sale, leaving for Checkout, signed events, invoices.

    offers      relay.toml → what can be bought now
    checkout    a Checkout Session, made by one request beside the loop
    signature   whether an event is Stripe's
    events      an event's JSON → a fact about a payment
    amounts     cents as text, and the tax that a price contains
    invoices    an invoice as PDF, and payments as CSV

What a fact moves is decided in `store.payment_events`, in one transaction.
"""
